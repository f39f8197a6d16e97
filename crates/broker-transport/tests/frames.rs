//! Frames over real connections.
#![cfg(feature = "tokio")]
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test may end at any surprise")]

use std::io::{Read, Write};

use broker_transport::frame_io::{
    FrameFault, FrameReader, ReadError, read_frame_body, read_frame_body_blocking,
};
use broker_transport::stream::{BlockingStream, Stream};

const HELLO: &[u8] = b"\x01\x05\x00\x00\x00hello";

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
        drop(near);
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
