//! A fixed number of places whose values stand in several queues at once.
//!
//! It gives pending handoffs constant-time removal from the middle of each of their queues, without a
//! second allocation and without `unsafe`: a link is an index. It knows nothing of handoffs or time.
//!
//! Invariant: a value never moves, from the place it was put into until it is dropped there, so a
//! secret in it is wiped where it lies. That is why all places are reserved at the start: a vector that
//! grows would leave copies behind.

use std::num::NonZeroU32;

/// How many queues a value can stand in at once.
const LANES: usize = 3;

/// Where a value is. Good until that value is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Index(
    /// One more than the position, so that `Option<Index>` takes no more room.
    NonZeroU32,
);

impl Index {
    fn at(position: usize) -> Option<Self> {
        u32::try_from(position + 1).ok().and_then(NonZeroU32::new).map(Self)
    }

    const fn position(self) -> usize {
        self.0.get() as usize - 1
    }
}

/// Which of its links a queue uses. A value stands in at most one queue per lane.
#[derive(Clone, Copy, Debug)]
pub(super) enum Lane {
    /// By the time of issue.
    Issued = 0,
    /// By the time of the offer.
    Offered = 1,
    /// With others for the same backend.
    Backend = 2,
}

/// The ends of a queue through the values of an [`Arena`].
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Queue {
    front: Option<Index>,
    back: Option<Index>,
}

impl Queue {
    pub(super) const fn front(&self) -> Option<Index> {
        self.front
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Link {
    previous: Option<Index>,
    next: Option<Index>,
}

#[derive(Debug)]
struct Place<T> {
    value: Option<T>,
    links: [Link; LANES],
}

/// Up to a fixed number of values.
#[derive(Debug)]
pub(super) struct Arena<T> {
    places: Vec<Place<T>>,
    /// Empty places, last emptied first, by the link of the first lane.
    vacant: Option<Index>,
    capacity: usize,
}

impl<T> Arena<T> {
    pub(super) fn with_capacity(capacity: usize) -> Self {
        Self { places: Vec::with_capacity(capacity), vacant: None, capacity }
    }

    /// Puts a value into a free place, in no queue yet. Where all are taken, it is dropped.
    pub(super) fn insert(&mut self, value: T) -> Option<Index> {
        if let Some(index) = self.vacant {
            let place = &mut self.places[index.position()];
            self.vacant = place.links[0].next;
            place.value = Some(value);
            return Some(index);
        }
        if self.places.len() == self.capacity {
            return None;
        }
        let index = Index::at(self.places.len())?;
        self.places.push(Place { value: Some(value), links: [Link::default(); LANES] });
        Some(index)
    }

    /// Drops a value, which must have left all its queues.
    pub(super) fn remove(&mut self, index: Index) {
        let place = &mut self.places[index.position()];
        place.value = None;
        place.links[0].next = self.vacant;
        self.vacant = Some(index);
    }

    pub(super) fn get(&self, index: Index) -> Option<&T> {
        self.places[index.position()].value.as_ref()
    }

    pub(super) fn get_mut(&mut self, index: Index) -> Option<&mut T> {
        self.places[index.position()].value.as_mut()
    }

    /// Puts a value, which stands in no queue of this lane, at the end of one.
    pub(super) fn push_back(&mut self, lane: Lane, queue: &mut Queue, index: Index) {
        *self.link(lane, index) = Link { previous: queue.back, next: None };
        match queue.back {
            Some(back) => self.link(lane, back).next = Some(index),
            None => queue.front = Some(index),
        }
        queue.back = Some(index);
    }

    /// Takes a value out of the queue it stands in.
    pub(super) fn unlink(&mut self, lane: Lane, queue: &mut Queue, index: Index) {
        let Link { previous, next } = *self.link(lane, index);
        match previous {
            Some(previous) => self.link(lane, previous).next = next,
            None => queue.front = next,
        }
        match next {
            Some(next) => self.link(lane, next).previous = previous,
            None => queue.back = previous,
        }
    }

    fn link(&mut self, lane: Lane, index: Index) -> &mut Link {
        &mut self.places[index.position()].links[lane as usize]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    /// The values of a queue, walked forwards; the walk backwards must agree.
    fn values(arena: &mut Arena<u32>, lane: Lane, queue: Queue) -> Vec<u32> {
        let mut forwards = Vec::new();
        let mut at = queue.front;
        while let Some(index) = at {
            forwards.push(*arena.get(index).unwrap());
            at = arena.link(lane, index).next;
        }
        let mut backwards = Vec::new();
        let mut at = queue.back;
        while let Some(index) = at {
            backwards.push(*arena.get(index).unwrap());
            at = arena.link(lane, index).previous;
        }
        backwards.reverse();
        assert_eq!(forwards, backwards);
        forwards
    }

    #[test]
    fn the_last_place_is_used_and_a_full_arena_takes_no_more() {
        let mut arena = Arena::with_capacity(2);
        arena.insert(1).unwrap();
        let second = arena.insert(2).unwrap();
        assert_eq!(arena.insert(3), None);
        arena.remove(second);
        assert_eq!(arena.get(second), None);
        assert_eq!(arena.insert(3), Some(second));
        assert_eq!(arena.get(second), Some(&3));
        assert_eq!(Arena::with_capacity(0).insert(1), None);
    }

    #[test]
    fn no_value_is_moved_by_others_that_come_and_go() {
        let mut arena = Arena::with_capacity(1_000);
        let first = arena.insert(0).unwrap();
        let address = std::ptr::from_ref(arena.get(first).unwrap());
        let others: Vec<_> = (1..1_000).map(|value| arena.insert(value).unwrap()).collect();
        others.into_iter().for_each(|index| arena.remove(index));
        assert_eq!(std::ptr::from_ref(arena.get(first).unwrap()), address);
    }

    #[test]
    fn a_value_stands_in_the_queues_of_several_lanes_independently() {
        let mut arena = Arena::with_capacity(4);
        let (mut issued, mut offered) = (Queue::default(), Queue::default());
        let indices: Vec<_> = (0..3).map(|value| arena.insert(value).unwrap()).collect();
        for index in &indices {
            arena.push_back(Lane::Issued, &mut issued, *index);
        }
        for index in indices.iter().rev() {
            arena.push_back(Lane::Offered, &mut offered, *index);
        }
        arena.unlink(Lane::Issued, &mut issued, indices[1]);
        assert_eq!(values(&mut arena, Lane::Issued, issued), [0, 2]);
        assert_eq!(values(&mut arena, Lane::Offered, offered), [2, 1, 0]);
    }

    proptest! {
        #[test]
        fn a_queue_keeps_its_order_whatever_leaves_it(steps in proptest::collection::vec(any::<(bool, usize)>(), 1..100)) {
            let mut arena = Arena::with_capacity(8);
            let mut queue = Queue::default();
            let mut model = VecDeque::new();
            for (number, (push, nth)) in steps.into_iter().enumerate() {
                let number = number as u32;
                if push {
                    match arena.insert(number) {
                        Some(index) => {
                            arena.push_back(Lane::Backend, &mut queue, index);
                            model.push_back((number, index));
                        }
                        None => prop_assert_eq!(model.len(), 8),
                    }
                } else if !model.is_empty() {
                    let (_, index) = model.remove(nth % model.len()).unwrap();
                    arena.unlink(Lane::Backend, &mut queue, index);
                    arena.remove(index);
                }
                let expected: Vec<_> = model.iter().map(|(number, _)| *number).collect();
                prop_assert_eq!(values(&mut arena, Lane::Backend, queue), expected);
            }
        }
    }
}
