//! Keeps equal values once. Only the writer has it; readers see the shared values.

use std::{borrow::Borrow, collections::HashSet, hash::Hash, sync::Arc};

use super::{Place, Profile};

/// Below this many values a pool is not swept: there would be little to gain.
const SMALLEST_SWEPT: usize = 1024;

/// One copy of each value, until nothing else uses it. (The hash's random seed decides nothing that can be observed.)
#[derive(Debug)]
pub(super) struct Pool<T: ?Sized> {
    values: HashSet<Arc<T>>,
    next_sweep: usize,
}

/// The pools of one writer.
#[derive(Debug, Default)]
pub(super) struct Interner {
    pub(super) texts: Pool<str>,
    pub(super) places: Pool<Place>,
    pub(super) profiles: Pool<Profile>,
}

impl<T: ?Sized + Hash + Eq> Pool<T> {
    /// The shared copy of `value`.
    pub(super) fn intern<V: Borrow<T> + Into<Arc<T>>>(&mut self, value: V) -> Arc<T> {
        if let Some(known) = self.values.get(value.borrow()) {
            return known.clone();
        }
        let value: Arc<T> = value.into();
        self.values.insert(value.clone());
        value
    }

    /// Forget what nobody uses any more, if the pool has doubled since the last time.
    fn sweep(&mut self) {
        if self.values.len() >= self.next_sweep {
            self.values.retain(|value| Arc::strong_count(value) > 1);
            self.next_sweep = (self.values.len() * 2).max(SMALLEST_SWEPT);
        }
    }
}

impl Interner {
    /// The shared copy of `text`.
    pub(super) fn text(&mut self, text: &str) -> Arc<str> {
        self.texts.intern(text)
    }

    /// Forget what nobody uses any more. Amortised O(1) per value that was ever added.
    pub(super) fn sweep(&mut self) {
        // Profiles and places hold texts, so they go first.
        self.profiles.sweep();
        self.places.sweep();
        self.texts.sweep();
    }
}

impl<T: ?Sized> Default for Pool<T> {
    fn default() -> Self {
        Self {
            values: HashSet::new(),
            next_sweep: SMALLEST_SWEPT,
        }
    }
}
