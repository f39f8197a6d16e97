//! Frames and descriptors over real sockets.
#![cfg(all(unix, feature = "tokio"))]
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test may end at any surprise")]

use std::fs::File;
use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use broker_transport::fd_passing::{
    FdPassError, MAX_DESCRIPTORS, read_frame_with_fds, read_frame_with_fds_blocking, recv_with_fds,
    recv_with_fds_blocking, send_all_with_fds, send_with_fds, send_with_fds_blocking,
};
use broker_transport::frame_io::{
    FrameFault, FrameReader, ReadError, read_frame_body, read_frame_body_blocking,
};
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
async fn early_data_stays_in_the_socket() {
    let (near, far) = Stream::pair().unwrap();
    near.send_all(&[HELLO, b"early"].concat()).await.unwrap();
    assert_eq!(read_frame_body(&far, 5).await.unwrap(), "hello");
    let mut rest = [0; 16];
    assert_eq!(far.try_read(&mut rest).unwrap(), 5);
    assert_eq!(&rest[..5], b"early");
}

#[test]
fn early_data_stays_in_the_socket_blocking() {
    let (mut near, mut far) = BlockingStream::pair().unwrap();
    near.write_all(&[HELLO, b"early"].concat()).unwrap();
    assert_eq!(read_frame_body_blocking(&far, 5, None).unwrap(), "hello");
    let mut rest = [0; 5];
    far.read_exact(&mut rest).unwrap();
    assert_eq!(&rest, b"early");
}

#[tokio::test]
async fn a_frame_that_is_one_byte_too_long_is_refused_unread() {
    let (near, far) = Stream::pair().unwrap();
    near.send_all(HELLO).await.unwrap();
    let error = read_frame_body(&far, 4).await.unwrap_err();
    assert!(matches!(error, ReadError::Fault(FrameFault::TooLong { declared: 5, limit: 4 })), "{error}");
    let mut rest = [0; 16];
    assert_eq!(far.try_read(&mut rest).unwrap(), 5);
}

#[tokio::test]
async fn a_cancelled_read_goes_on_where_it_stopped_and_says_how_far_it_came() {
    let (near, far) = Stream::pair().unwrap();
    let mut reader = FrameReader::new(5);
    for (index, piece) in HELLO.chunks(3).enumerate() {
        tokio::select! {
            biased;
            read = reader.read_from(&far) => panic!("complete too early: {read:?}"),
            () = std::future::ready(()) => {}
        }
        assert_eq!(reader.received(), 3 * index);
        near.send_all(piece).await.unwrap();
    }
    reader.read_from(&far).await.unwrap();
    assert_eq!(reader.take_body(), "hello");
}

#[tokio::test]
async fn the_end_of_the_stream_is_told_apart_by_where_it_comes() {
    for sent in [0, 1, 4, 5, 9] {
        let (near, far) = Stream::pair().unwrap();
        near.send_all(&HELLO[..sent]).await.unwrap();
        near.shutdown(Shutdown::Write).unwrap();
        let expected = match sent {
            0 => FrameFault::ClosedBeforeFirstByte,
            received => FrameFault::Truncated { received },
        };
        let error = read_frame_body(&far, 5).await.unwrap_err();
        assert!(matches!(error, ReadError::Fault(fault) if fault == expected), "{error}");
    }
}

#[tokio::test]
async fn a_reset_connection_counts_as_one_that_ended() {
    let (near, far) = Stream::pair().unwrap();
    far.send_all(b"never read by the other side").await.unwrap();
    drop(near);
    let error = read_frame_body(&far, 5).await.unwrap_err();
    assert!(matches!(error, ReadError::Fault(FrameFault::ClosedBeforeFirstByte)), "{error}");
}

#[tokio::test]
async fn a_large_frame_passes_while_the_other_side_still_writes() {
    let (near, far) = Stream::pair().unwrap();
    let body = vec![7; 3 * 1024 * 1024];
    let wire = [&[1][..], &u32::try_from(body.len()).unwrap().to_le_bytes(), &body].concat();
    let (sent, read) = tokio::join!(near.send_all(&wire), read_frame_body(&far, body.len()));
    sent.unwrap();
    assert_eq!(read.unwrap(), body);
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
