//! How often a backend may be started in a row (behaviour.md 4, "Budget").
//!
//! One [`SpawnBudget`] belongs to one (instance, service, version); it starts nothing and knows no key.
//!
//! Invariant: from the first attempt of a window until [`SPAWN_WINDOW`] later, at most
//! [`SPAWN_ATTEMPTS`] are granted. The window is fixed, not sliding: its end is known from its first
//! attempt on and moves for no later one, so what a client is told to wait is what it has to wait.

use std::time::Duration;

use crate::time::Monotonic;

/// Attempts per window.
pub const SPAWN_ATTEMPTS: u32 = 3;

/// Length of a window, counted from its first attempt.
pub const SPAWN_WINDOW: Duration = Duration::from_secs(30);

/// The attempts of one key in its current window.
#[derive(Clone, Debug, Default)]
pub struct SpawnBudget {
    window: Option<Window>,
}

#[derive(Clone, Copy, Debug)]
struct Window {
    began: Monotonic,
    attempts: u32,
}

impl SpawnBudget {
    /// Spends one attempt. The first one begins a window.
    ///
    /// # Errors
    /// The time until the window ends, where its attempts are spent; never zero.
    pub fn try_spend(&mut self, now: Monotonic) -> Result<(), Duration> {
        let mut window = self.window_at(now).unwrap_or(Window { began: now, attempts: 0 });
        if window.attempts == SPAWN_ATTEMPTS {
            return Err(window.time_left(now));
        }
        window.attempts += 1;
        self.window = Some(window);
        Ok(())
    }

    /// Forgets all attempts, because one succeeded.
    pub fn reset(&mut self) {
        self.window = None;
    }

    /// Attempts spent in the current window.
    pub fn attempts_used(&self, now: Monotonic) -> u32 {
        self.window_at(now).map_or(0, |window| window.attempts)
    }

    /// Attempts left in the current window.
    pub fn remaining(&self, now: Monotonic) -> u32 {
        SPAWN_ATTEMPTS - self.attempts_used(now)
    }

    /// How long until an attempt is granted; zero where one would be granted now.
    pub fn retry_after(&self, now: Monotonic) -> Duration {
        self.window_at(now)
            .filter(|window| window.attempts == SPAWN_ATTEMPTS)
            .map_or(Duration::ZERO, |window| window.time_left(now))
    }

    /// When the latest window ends, from when on the budget is as good as a new one; `None` where it is
    /// that already, for want of an attempt since the last success.
    pub fn window_end(&self) -> Option<Monotonic> {
        self.window.map(|window| window.began.saturating_add(SPAWN_WINDOW))
    }

    /// The window that `now` lies in. One from the future, of a clock that went back, is still open.
    fn window_at(&self, now: Monotonic) -> Option<Window> {
        self.window.filter(|window| !window.time_left(now).is_zero())
    }
}

impl Window {
    fn time_left(self, now: Monotonic) -> Duration {
        SPAWN_WINDOW.saturating_sub(now.duration_since(self.began))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NANOSECOND: Duration = Duration::from_nanos(1);

    fn at(offset: Duration) -> Monotonic {
        Monotonic::from_nanos(100_000_000_000).saturating_add(offset)
    }

    fn spent() -> SpawnBudget {
        let mut budget = SpawnBudget::default();
        for second in 0..3 {
            assert_eq!(budget.try_spend(at(Duration::from_secs(second))), Ok(()));
        }
        budget
    }

    #[test]
    fn three_attempts_are_granted_and_the_fourth_is_told_when_the_window_ends() {
        let mut budget = spent();
        assert_eq!(budget.try_spend(at(Duration::from_secs(3))), Err(Duration::from_secs(27)));
    }

    #[test]
    fn the_window_ends_thirty_seconds_after_its_first_attempt_to_the_nanosecond() {
        let mut budget = spent();
        assert_eq!(budget.try_spend(at(SPAWN_WINDOW - NANOSECOND)), Err(NANOSECOND));
        assert_eq!(budget.try_spend(at(SPAWN_WINDOW)), Ok(()));
        assert_eq!(budget.attempts_used(at(SPAWN_WINDOW)), 1);
    }

    #[test]
    fn an_attempt_after_the_window_begins_the_next_one() {
        let mut budget = spent();
        let late = Duration::from_secs(45);
        for _ in 0..SPAWN_ATTEMPTS {
            assert_eq!(budget.try_spend(at(late)), Ok(()));
        }
        assert_eq!(budget.try_spend(at(late)), Err(SPAWN_WINDOW));
    }

    #[test]
    fn a_refused_attempt_costs_nothing_and_moves_no_window() {
        let mut budget = spent();
        for _ in 0..10 {
            assert!(budget.try_spend(at(Duration::from_secs(20))).is_err());
        }
        assert_eq!(budget.attempts_used(at(Duration::from_secs(20))), SPAWN_ATTEMPTS);
        assert_eq!(budget.retry_after(at(Duration::from_secs(20))), Duration::from_secs(10));
    }

    #[test]
    fn success_gives_all_attempts_back() {
        let mut budget = spent();
        budget.reset();
        assert_eq!(budget.remaining(at(Duration::from_secs(3))), SPAWN_ATTEMPTS);
        assert_eq!(budget.try_spend(at(Duration::from_secs(3))), Ok(()));
        assert_eq!(budget.remaining(at(Duration::from_secs(32))), SPAWN_ATTEMPTS - 1);
        assert_eq!(budget.remaining(at(Duration::from_secs(33))), SPAWN_ATTEMPTS);
    }

    #[test]
    fn what_is_reported_is_what_try_spend_would_do() {
        let mut budget = SpawnBudget::default();
        assert_eq!((budget.attempts_used(at(Duration::ZERO)), budget.remaining(at(Duration::ZERO))), (0, 3));
        for used in 1..=3 {
            assert_eq!(budget.retry_after(at(Duration::ZERO)), Duration::ZERO);
            budget.try_spend(at(Duration::ZERO)).unwrap();
            assert_eq!(
                (budget.attempts_used(at(Duration::ZERO)), budget.remaining(at(Duration::ZERO))),
                (used, 3 - used)
            );
        }
        assert_eq!(budget.retry_after(at(NANOSECOND)), SPAWN_WINDOW - NANOSECOND);
        assert_eq!(budget.retry_after(at(SPAWN_WINDOW)), Duration::ZERO);
        assert_eq!(budget.remaining(at(SPAWN_WINDOW)), 3);
    }

    #[test]
    fn the_end_of_the_window_is_known_from_its_first_attempt_on() {
        let mut budget = SpawnBudget::default();
        assert_eq!(budget.window_end(), None);
        budget.try_spend(at(Duration::ZERO)).unwrap();
        budget.try_spend(at(Duration::from_secs(1))).unwrap();
        assert_eq!(budget.window_end(), Some(at(SPAWN_WINDOW)));
        assert_eq!(budget.attempts_used(at(SPAWN_WINDOW)), 0);
        budget.reset();
        assert_eq!(budget.window_end(), None);
    }

    #[test]
    fn a_clock_that_goes_back_grants_nothing_and_waits_no_longer_than_a_window() {
        let mut budget = spent();
        assert_eq!(budget.try_spend(Monotonic::default()), Err(SPAWN_WINDOW));
    }
}
