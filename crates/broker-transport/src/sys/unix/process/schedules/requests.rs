//! The spawner's queue in many schedules: every request is taken, once and in order, and the thread that
//! takes them never sleeps over one.
//!
//! The thread looks and sleeps as the spawner's does, but ends when it has everything. One that sleeps for
//! ever is a deadlock, which shuttle tells of; with a wake of the kernel's it takes more steps than there are.

use std::os::fd::AsFd;
use std::sync::{Arc, PoisonError};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use shuttle::sync::{Condvar, Mutex};
use shuttle::thread;

use super::super::super::super::os::process::Wake;
use super::super::planted::Bug;
use super::super::request_queue::{RequestQueue, WakeUp};
use super::{find, hold, hold_in_all};

/// Who pushes how much. The thread that takes wakes up once for another reason, as the spawner's does when
/// a child ends.
#[derive(Clone, Copy)]
struct Scene {
    producers: usize,
    requests_of_each: usize,
}

const A_FEW: Scene = Scene { producers: 2, requests_of_each: 2 };
const ONE: Scene = Scene { producers: 1, requests_of_each: 1 };

/// A wake on which a thread can sleep.
trait Sleep: WakeUp + Send + Sync + Sized + 'static {
    fn sleep(&self);
}

/// A wake of which the number is all: how many fit, and how many are cleared at once.
struct Count {
    wakes: Mutex<usize>,
    woken: Condvar,
    room: usize,
    cleared_at_once: usize,
}

impl Count {
    fn new(room: usize, cleared_at_once: usize) -> Self {
        Self { wakes: Mutex::new(0), woken: Condvar::new(), room, cleared_at_once }
    }

    /// eventfd(2): as good as boundless, and a read takes everything.
    fn of_an_eventfd() -> Self {
        Self::new(usize::MAX, usize::MAX)
    }

    /// A pipe that is full with two, of which a read takes one.
    fn of_a_pipe() -> Self {
        Self::new(2, 1)
    }
}

impl WakeUp for Count {
    fn wake(&self) {
        let mut wakes = self.wakes.lock().unwrap();
        *wakes = (*wakes + 1).min(self.room);
        self.woken.notify_all();
    }

    fn clear(&self) {
        let mut wakes = self.wakes.lock().unwrap();
        *wakes = wakes.saturating_sub(self.cleared_at_once);
    }
}

impl Sleep for Count {
    fn sleep(&self) {
        let wakes = self.wakes.lock().unwrap();
        drop(self.woken.wait_while(wakes, |wakes| *wakes == 0).unwrap_or_else(PoisonError::into_inner));
    }
}

/// This system's own wake. Who sleeps on it lets the others go on instead of waiting in the kernel.
struct OfTheKernel {
    wake: Wake,
    /// Where shuttle may choose another thread: it does not see the system's calls.
    crossing: Mutex<()>,
}

impl OfTheKernel {
    fn new() -> Self {
        Self { wake: Wake::new().unwrap(), crossing: Mutex::new(()) }
    }

    fn cross(&self) {
        drop(self.crossing.lock().unwrap());
    }
}

impl WakeUp for OfTheKernel {
    fn wake(&self) {
        self.cross();
        self.wake.wake();
    }

    fn clear(&self) {
        self.cross();
        self.wake.clear();
    }
}

impl Sleep for OfTheKernel {
    fn sleep(&self) {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        while poll(&mut [PollFd::new(&self.wake.as_fd(), PollFlags::IN)], Some(&now)).unwrap() == 0 {
            shuttle::hint::spin_loop();
        }
    }
}

/// Several threads push, and this one takes.
fn exchange<W: Sleep>(scene: Scene, wake: W) {
    let queue = Arc::new(RequestQueue::new(wake));
    let producers: Vec<_> = (0..scene.producers)
        .map(|producer| {
            let queue = Arc::clone(&queue);
            thread::spawn(move || {
                (0..scene.requests_of_each).for_each(|number| queue.push((producer, number)));
            })
        })
        .collect();
    let taken = take_all(scene, &queue);
    for producer in 0..scene.producers {
        let numbers = taken.iter().filter(|(from, _)| *from == producer).map(|(_, number)| *number);
        assert!(
            numbers.eq(0..scene.requests_of_each),
            "{producer} pushed in order, and this came: {taken:?}"
        );
    }
    producers.into_iter().for_each(|producer| producer.join().unwrap());
    assert_eq!(queue.next(), None);
}

/// Takes what is pushed as the spawner's thread does.
fn take_all<W: Sleep>(scene: Scene, queue: &RequestQueue<(usize, usize), W>) -> Vec<(usize, usize)> {
    let mut taken = Vec::new();
    let mut wakes_up_by_itself = true;
    loop {
        while let Some(request) = queue.next() {
            taken.push(request);
        }
        if taken.len() == scene.producers * scene.requests_of_each {
            return taken;
        }
        queue.sleep(|wake| {
            if !wakes_up_by_itself {
                wake.sleep();
            }
        });
        wakes_up_by_itself = false;
    }
}

fn with_an_eventfd() {
    exchange(A_FEW, Count::of_an_eventfd());
}

fn with_a_pipe() {
    exchange(A_FEW, Count::of_a_pipe());
}

fn with_the_kernels() {
    exchange(A_FEW, OfTheKernel::new());
}

#[test]
fn no_request_is_slept_over_with_a_wake_that_is_cleared_at_once() {
    hold(with_an_eventfd);
}

#[test]
fn no_request_is_slept_over_with_a_wake_that_is_full_soon_and_cleared_in_parts() {
    hold(with_a_pipe);
}

#[test]
fn no_request_is_slept_over_with_the_wake_of_this_system() {
    hold(with_the_kernels);
}

#[test]
fn one_request_is_slept_over_in_no_schedule_at_all() {
    hold_in_all(|| exchange(ONE, Count::of_an_eventfd()));
    hold_in_all(|| exchange(ONE, Count::of_a_pipe()));
}

#[test]
fn a_wake_before_the_push_is_found() {
    find(Bug::WakeBeforePush, with_an_eventfd, "deadlock");
}

#[test]
fn a_wake_that_is_cleared_after_the_look_is_found() {
    find(Bug::ClearAfterLook, with_an_eventfd, "deadlock");
}

#[test]
fn a_wake_that_is_cleared_after_the_look_is_found_with_the_wake_of_this_system() {
    find(Bug::ClearAfterLook, with_the_kernels, "exceeded max_steps");
}

#[test]
fn a_wake_before_the_push_is_found_with_the_wake_of_this_system() {
    find(Bug::WakeBeforePush, with_the_kernels, "exceeded max_steps");
}
