use std::sync::mpsc::{Receiver, channel};

use tokio::task::{JoinError, spawn_blocking};

/// Runs `work` on a thread for blocking work. Dropped before that is done, it blocks until the work has ended and its
/// result is dropped: what the caller removes then is not made again.
///
/// # Errors
/// If `work` panics.
pub(crate) async fn to_its_end<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    let (finished, end) = channel();
    let _wait = End(end);
    // Fields are dropped in order, so the result is before the sender.
    let (result, _finished) = spawn_blocking(move || (work(), finished)).await?;
    Ok(result)
}

/// Blocks when it is dropped, until the sender is.
struct End(Receiver<()>);

impl Drop for End {
    fn drop(&mut self) {
        // The only possible answer is that the sender was dropped.
        let _ = self.0.recv();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    struct Removed(Arc<AtomicBool>);

    impl Drop for Removed {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    #[tokio::test]
    async fn a_result_that_is_not_wanted_is_dropped_before_the_caller_goes_on() {
        let removed = Arc::new(AtomicBool::new(false));
        let (begins, began) = channel();
        let (goes_on, waits) = channel::<()>();
        let made = Removed(removed.clone());
        let work = to_its_end(move || {
            let _ = begins.send(());
            let _ = waits.recv();
            made
        });
        let mut work = Box::pin(work);
        let polled = polled_once(work.as_mut()).await;
        assert!(polled.is_none());
        began.recv().unwrap();
        drop(goes_on);
        drop(work);
        assert!(removed.load(Ordering::SeqCst));
        assert_eq!(to_its_end(|| 7).await.unwrap(), 7);
    }

    /// Polls once.
    async fn polled_once<F: Future>(mut future: std::pin::Pin<&mut F>) -> Option<F::Output> {
        std::future::poll_fn(|context| match future.as_mut().poll(context) {
            std::task::Poll::Ready(value) => std::task::Poll::Ready(Some(value)),
            std::task::Poll::Pending => std::task::Poll::Ready(None),
        })
        .await
    }
}
