//! Looking at a future once.

use std::any::Any;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::Poll;

/// [`first_look`] that gives a panic back, for whoever has something to finish before it goes on.
pub(crate) async fn caught_look<F: Future>(mut future: Pin<&mut F>) -> Result<Option<F::Output>, Panic> {
    poll_fn(|context| {
        let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context)));
        Poll::Ready(match polled {
            Ok(Poll::Ready(output)) => Ok(Some(output)),
            Ok(Poll::Pending) => Ok(None),
            Err(panic) => Err(panic),
        })
    })
    .await
}

/// What was panicked with.
pub(crate) type Panic = Box<dyn Any + Send>;

/// What a future comes to without waiting; whoever asks is woken for it, so it can be awaited next.
pub(crate) async fn first_look<F: Future>(mut future: Pin<&mut F>) -> Option<F::Output> {
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}
