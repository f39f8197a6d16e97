//! Looking at a future once.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

/// What a future comes to without waiting; whoever asks is woken for it, so it can be awaited next.
pub(crate) async fn first_look<F: Future>(mut future: Pin<&mut F>) -> Option<F::Output> {
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}
