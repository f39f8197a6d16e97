//! Descriptors over real sockets, and the frames that they ride on.
#![cfg(all(unix, feature = "tokio"))]
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test may end at any surprise")]

use std::fs::File;
use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use broker_transport::fd_passing::{
    FdPassError, MAX_DESCRIPTORS, read_frame_with_fds, read_frame_with_fds_blocking, recv_with_fds,
    recv_with_fds_blocking, send_all_with_fds, send_with_fds, send_with_fds_blocking,
};
use broker_transport::frame_io::FrameReader;
use broker_transport::stream::{BlockingStream, Stream};
use rustix::io::{FdFlags, fcntl_getfd};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

const HELLO: &[u8] = b"\x01\x05\x00\x00\x00hello";

fn pipe() -> (File, OwnedFd) {
    let (read, write) = rustix::pipe::pipe().unwrap();
    (File::from(read), write)
}

/// Whether a passed writing end leads to this pipe and is closed in children.
fn works(mut reader: File, passed: OwnedFd) {
    assert!(fcntl_getfd(&passed).unwrap().contains(FdFlags::CLOEXEC));
    File::from(passed).write_all(b"through").unwrap();
    assert_eq!(end_of(&mut reader), "through");
}

/// Reads to the end, which comes only when every copy of the writing end is closed.
fn end_of(reader: &mut File) -> String {
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    text
}

#[tokio::test]
async fn a_descriptor_passes_works_and_is_closed_in_children() {
    let (near, far) = Stream::pair().unwrap();
    let (reader, writer) = pipe();
    assert_eq!(send_with_fds(&near, b"token", &[writer.as_fd()]).await.unwrap(), 5);
    drop(writer);
    let mut buffer = [0; 16];
    let mut received = recv_with_fds(&far, &mut buffer, 1).await.unwrap();
    assert_eq!((&buffer[..received.len], received.descriptors.len()), (&b"token"[..], 1));
    works(reader, received.descriptors.remove(0));
}

#[test]
fn a_descriptor_passes_blocking() {
    let (near, far) = BlockingStream::pair().unwrap();
    let (reader, writer) = pipe();
    send_with_fds_blocking(&near, b"t", &[writer.as_fd()]).unwrap();
    drop(writer);
    let mut received = recv_with_fds_blocking(&far, &mut [0; 16], 1, None).unwrap();
    works(reader, received.descriptors.remove(0));
}

#[tokio::test]
async fn the_most_descriptors_pass_and_one_more_does_not() {
    let (near, far) = Stream::pair().unwrap();
    let null = File::open("/dev/null").unwrap();
    let many: Vec<BorrowedFd<'_>> = (0..=MAX_DESCRIPTORS).map(|_| null.as_fd()).collect();
    let error = send_with_fds(&near, b"x", &many).await.unwrap_err();
    assert!(matches!(error, FdPassError::TooMany { actual } if actual == MAX_DESCRIPTORS + 1));
    assert!(matches!(send_with_fds(&near, b"", &many[..1]).await, Err(FdPassError::NoBytes)));
    send_with_fds(&near, b"x", &many[1..]).await.unwrap();
    let received = recv_with_fds(&far, &mut [0; 1], MAX_DESCRIPTORS).await.unwrap();
    assert_eq!(received.descriptors.len(), MAX_DESCRIPTORS);
}

#[tokio::test]
async fn descriptors_that_nobody_expects_are_closed() {
    let (near, far) = Stream::pair().unwrap();
    let (mut reader, writer) = pipe();
    send_with_fds(&near, b"x", &[writer.as_fd(), writer.as_fd()]).await.unwrap();
    drop(writer);
    let error = recv_with_fds(&far, &mut [0; 1], 1).await.unwrap_err();
    assert!(matches!(error, FdPassError::Surplus { expected: 1, actual: 2 }), "{error}");
    assert_eq!(end_of(&mut reader), "");
}

#[tokio::test]
async fn a_message_that_the_kernel_cuts_is_an_error_and_leaves_nothing_open() {
    let (near, far) = Stream::pair().unwrap();
    let (mut reader, writer) = pipe();
    let many = [writer.as_fd(); MAX_DESCRIPTORS + 8];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS + 8))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(&many)));
    sendmsg(&near, &[IoSlice::new(b"x")], &mut control, SendFlags::empty()).unwrap();
    drop(writer);
    let error = recv_with_fds(&far, &mut [0; 1], MAX_DESCRIPTORS).await.unwrap_err();
    assert!(matches!(error, FdPassError::Cut { len: 1 }), "{error}");
    assert_eq!(end_of(&mut reader), "");
}

#[tokio::test]
async fn a_descriptor_rides_on_the_frame_it_came_with() {
    let (near, far) = Stream::pair().unwrap();
    let (reader, writer) = pipe();
    near.send_all(HELLO).await.unwrap();
    send_all_with_fds(&near, HELLO, &[writer.as_fd()]).await.unwrap();
    drop(writer);
    let (mut frames, mut descriptors) = (FrameReader::new(5), Vec::new());
    read_frame_with_fds(&far, &mut frames, &mut descriptors, 1).await.unwrap();
    assert_eq!((frames.take_body().as_ref(), descriptors.len()), (&b"hello"[..], 0));
    read_frame_with_fds(&far, &mut frames, &mut descriptors, 1).await.unwrap();
    assert_eq!(frames.take_body(), "hello");
    works(reader, descriptors.remove(0));
}

#[test]
fn a_descriptor_rides_on_the_frame_it_came_with_blocking() {
    let (near, far) = BlockingStream::pair().unwrap();
    let (reader, writer) = pipe();
    send_with_fds_blocking(&near, HELLO, &[writer.as_fd()]).unwrap();
    drop(writer);
    let (mut frames, mut descriptors) = (FrameReader::new(5), Vec::new());
    read_frame_with_fds_blocking(&far, &mut frames, &mut descriptors, 1, None).unwrap();
    works(reader, descriptors.remove(0));
}

// macOS closes them just so, but does not tell.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn descriptors_that_nobody_asked_for_are_closed_and_their_message_is_counted() {
    use broker_transport::fd_passing::discarded_messages;

    let (near, far) = Stream::pair().unwrap();
    let (mut reader, writer) = pipe();
    let before = discarded_messages();
    send_all_with_fds(&near, HELLO, &[writer.as_fd(), writer.as_fd()]).await.unwrap();
    drop(writer);
    let mut frame = FrameReader::new(16);
    frame.read_from(&far).await.unwrap();
    assert_eq!(frame.take_body().as_ref(), b"hello");
    assert_eq!(end_of(&mut reader), "");
    assert_eq!(discarded_messages() - before, 1);
    near.send_all(HELLO).await.unwrap();
    frame.read_from(&far).await.unwrap();
    assert_eq!(discarded_messages() - before, 1);
}
