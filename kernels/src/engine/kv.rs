//! Which sequence holds which pages of a KV cache, and which pages can be used again for a known prefix.
//!
//! Pure bookkeeping: no device, no clock, no randomness. A page is free, held (by one or more sequences), or
//! cached: held by nobody, but its contents are known and it can be had again by its tokens until it is evicted,
//! least recently used first. A page that the index knows is full and is never written again.

use std::collections::{BTreeMap, HashMap};

use crate::backend::{PAGE, PageId};

/// Why the pool refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// Every page is held.
    #[error("all {0} pages of the KV cache are in use")]
    Exhausted(usize),
    /// A page that nobody holds was released, retained or published.
    #[error("page {0} is not held")]
    NotHeld(PageId),
    /// Tokens and pages of a published sequence do not belong together.
    #[error("{tokens} tokens do not fit {pages} pages")]
    Mismatch {
        /// Tokens given.
        tokens: usize,
        /// Pages given.
        pages: usize,
    },
}

/// Name of a chain of pages: 0 is the empty chain, every other number is given to one indexed page and never
/// reused, so that equal keys mean equal tokens from the start of the sequence.
type Chain = u64;

type Key = (Chain, [u32; PAGE]);

#[derive(Clone, Debug, Default)]
struct Page {
    holders: u32,
    /// Its key in the index, when it is there.
    key: Option<Box<Key>>,
    /// When it was last released (only while it is cached).
    released: u64,
}

/// Pages of one KV cache.
#[derive(Clone, Debug)]
pub struct PagePool {
    pages: Vec<Page>,
    free: Vec<PageId>,
    index: HashMap<Key, (PageId, Chain)>,
    /// Cached pages by the time of their release.
    cached: BTreeMap<u64, PageId>,
    clock: u64,
    chains: Chain,
}

impl PagePool {
    /// A pool of free pages `0..pages`.
    pub fn new(pages: usize) -> Self {
        Self {
            pages: vec![Page::default(); pages],
            free: (0u32..).take(pages).collect::<Vec<_>>().into_iter().rev().collect(),
            index: HashMap::new(),
            cached: BTreeMap::new(),
            clock: 0,
            chains: 0,
        }
    }

    /// All pages.
    pub fn total(&self) -> usize {
        self.pages.len()
    }

    /// Pages that [`PagePool::alloc`] can give: free and cached ones.
    pub fn available(&self) -> usize {
        self.free.len() + self.cached.len()
    }

    /// Pages that nobody holds but whose contents can be had again.
    pub fn cached(&self) -> usize {
        self.cached.len()
    }

    /// Pages that somebody holds.
    pub fn held(&self) -> usize {
        self.total() - self.available()
    }

    /// Pages that so many positions take.
    pub const fn pages_for(positions: usize) -> usize {
        positions.div_ceil(PAGE)
    }

    /// Whether the caller, who holds the page, may write to it: nobody else holds it and no prefix names it.
    pub fn is_exclusive(&self, page: PageId) -> bool {
        self.pages.get(page as usize).is_some_and(|p| p.holders == 1 && p.key.is_none())
    }

    /// Takes a page to write to; evicts the cached page that was released longest ago when none is free.
    ///
    /// # Errors
    /// [`PoolError::Exhausted`] when every page is held.
    pub fn alloc(&mut self) -> Result<PageId, PoolError> {
        let id = match self.free.pop() {
            Some(id) => id,
            None => {
                let (_, id) = self.cached.pop_first().ok_or(PoolError::Exhausted(self.pages.len()))?;
                self.forget(id);
                id
            }
        };
        if let Some(page) = self.pages.get_mut(id as usize) {
            page.holders = 1;
        }
        Ok(id)
    }

    /// One more holder for a held page.
    ///
    /// # Errors
    /// [`PoolError::NotHeld`].
    pub fn retain(&mut self, id: PageId) -> Result<(), PoolError> {
        let page = self.held_page(id)?;
        page.holders += 1;
        Ok(())
    }

    /// One holder less. The last one leaves the page cached when its prefix is known, free otherwise. Release a
    /// sequence's pages from the last to the first: then the tails of prefixes are evicted before their heads.
    ///
    /// # Errors
    /// [`PoolError::NotHeld`].
    pub fn release(&mut self, id: PageId) -> Result<(), PoolError> {
        self.clock += 1;
        let now = self.clock;
        let page = self.held_page(id)?;
        page.holders -= 1;
        if page.holders > 0 {
            return Ok(());
        }
        if page.key.is_some() {
            page.released = now;
            self.cached.insert(now, id);
        } else {
            self.free.push(id);
        }
        Ok(())
    }

    /// Makes the full pages of a sequence known, so that others can start from them. `pages` are the sequence's
    /// pages in order, all held by the caller, and hold (at least) these tokens' keys and values. From then on the
    /// caller must not write to the full ones, which appending never does. Where an equal prefix is known already,
    /// that one stays. Calling it again as the sequence grows is cheap enough to do once per page.
    ///
    /// # Errors
    /// [`PoolError::Mismatch`] when there are fewer pages than full ones, [`PoolError::NotHeld`].
    pub fn publish(&mut self, tokens: &[u32], pages: &[PageId]) -> Result<(), PoolError> {
        let (full, _) = tokens.as_chunks::<PAGE>();
        if full.len() > pages.len() {
            return Err(PoolError::Mismatch { tokens: tokens.len(), pages: pages.len() });
        }
        let mut chain = 0;
        for (tokens, &id) in full.iter().zip(pages) {
            let page = self.held_page(id)?;
            let key = (chain, *tokens);
            let known = page.key.is_some();
            match self.index.get(&key) {
                Some(&(_, next)) => chain = next,
                // Already indexed under a chain that was evicted since: it stays as it is.
                None if known => return Ok(()),
                None => {
                    self.chains += 1;
                    chain = self.chains;
                    self.index.insert(key, (id, chain));
                    self.held_page(id)?.key = Some(Box::new(key));
                }
            }
        }
        Ok(())
    }

    /// The longest known prefix of `tokens`, in whole pages, and how many tokens it covers. The caller becomes a
    /// holder of each page. At least one token is always left over, as its logits are what a caller wants.
    pub fn lookup_prefix(&mut self, tokens: &[u32]) -> (Vec<PageId>, usize) {
        let usable = tokens.len().saturating_sub(1);
        let (full, _) = tokens.get(..usable).unwrap_or_default().as_chunks::<PAGE>();
        let mut chain = 0;
        let mut found = Vec::new();
        for tokens in full {
            let Some(&(id, next)) = self.index.get(&(chain, *tokens)) else { break };
            chain = next;
            if let Some(page) = self.pages.get_mut(id as usize) {
                if page.holders == 0 {
                    self.cached.remove(&page.released);
                }
                page.holders += 1;
            }
            found.push(id);
        }
        let matched = found.len() * PAGE;
        (found, matched)
    }

    /// Forgets all prefixes; cached pages become free.
    pub fn clear_prefixes(&mut self) {
        while let Some((_, id)) = self.cached.pop_first() {
            self.free.push(id);
        }
        self.index.clear();
        self.pages.iter_mut().for_each(|p| p.key = None);
    }

    fn held_page(&mut self, id: PageId) -> Result<&mut Page, PoolError> {
        self.pages.get_mut(id as usize).filter(|p| p.holders > 0).ok_or(PoolError::NotHeld(id))
    }

    /// Takes a page out of the index.
    fn forget(&mut self, id: PageId) {
        if let Some(key) = self.pages.get_mut(id as usize).and_then(|p| p.key.take()) {
            self.index.remove(&*key);
        }
    }
}

#[cfg(test)]
mod tests;
