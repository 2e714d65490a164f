use proptest::prelude::*;

use super::*;

fn tokens(n: usize, salt: u32) -> Vec<u32> {
    (0..n as u32).map(|i| i * 7 + salt).collect()
}

#[test]
fn a_released_prefix_is_found_again_and_evicted_on_demand() {
    let mut pool = PagePool::new(4);
    let text = tokens(3 * PAGE, 1);
    let pages: Vec<_> = (0..3).map(|_| pool.alloc().unwrap()).collect();
    pool.publish(&text, &pages).unwrap();
    assert!(!pool.is_exclusive(pages[0]));
    pages.iter().rev().for_each(|&p| pool.release(p).unwrap());
    assert_eq!((pool.held(), pool.cached(), pool.available()), (0, 3, 4));
    // One token is left over, so the third page is not matched.
    assert_eq!(pool.lookup_prefix(&text), (pages[..2].to_vec(), 2 * PAGE));
    let mut longer = text.clone();
    longer.push(9);
    assert_eq!(pool.lookup_prefix(&longer), (pages.clone(), 3 * PAGE));
    assert_eq!(pool.alloc().map(|_| ()), Ok(()));
    assert_eq!(pool.alloc(), Err(PoolError::Exhausted(4)));
    for &p in pages.iter().rev() {
        pool.release(p).unwrap();
    }
    pool.release(pages[1]).unwrap();
    pool.release(pages[0]).unwrap();
    assert_eq!(pool.release(pages[0]), Err(PoolError::NotHeld(pages[0])));
    // The tail goes first.
    assert_eq!(pool.alloc(), Ok(pages[2]));
    assert_eq!(pool.lookup_prefix(&longer).1, 2 * PAGE);
}

#[test]
fn another_beginning_is_another_prefix() {
    let mut pool = PagePool::new(8);
    let (a, b) = (tokens(PAGE, 1), tokens(PAGE, 2));
    let pages = [pool.alloc().unwrap(), pool.alloc().unwrap()];
    pool.publish(&[a.clone(), b.clone()].concat(), &pages).unwrap();
    assert_eq!(pool.lookup_prefix(&[b.clone(), b.clone(), vec![1]].concat()).1, 0);
    assert_eq!(pool.lookup_prefix(&[a.clone(), a, vec![1]].concat()).1, PAGE);
}

#[derive(Clone, Debug)]
enum Op {
    /// Starts a sequence with this many tokens of text `salt`.
    Start {
        salt: u32,
        len: usize,
    },
    /// Appends tokens to one of the sequences.
    Grow {
        which: usize,
        len: usize,
    },
    /// Ends one.
    End {
        which: usize,
    },
    /// A second holder of all its pages, whose next write needs a copy of the last page.
    Fork {
        which: usize,
    },
    Clear,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => (0..4u32, 1..200usize).prop_map(|(salt, len)| Op::Start { salt, len }),
        3 => (any::<usize>(), 1..80usize).prop_map(|(which, len)| Op::Grow { which, len }),
        3 => any::<usize>().prop_map(|which| Op::End { which }),
        1 => any::<usize>().prop_map(|which| Op::Fork { which }),
        1 => Just(Op::Clear),
    ]
}

#[derive(Clone, Debug, Default)]
struct Sequence {
    tokens: Vec<u32>,
    pages: Vec<PageId>,
}

/// What each page holds: the tokens that were written to its positions.
type Contents = Vec<Vec<u32>>;

/// Appends as a scheduler would; leaves the sequence unchanged when the pool is exhausted.
fn append(pool: &mut PagePool, contents: &mut Contents, s: &mut Sequence, new: &[u32]) -> bool {
    for &token in new {
        let offset = s.tokens.len() % PAGE;
        if offset == 0 {
            let Ok(page) = pool.alloc() else { return false };
            contents[page as usize].clear();
            s.pages.push(page);
        } else if !pool.is_exclusive(*s.pages.last().unwrap()) {
            let Ok(page) = pool.alloc() else { return false };
            let old = s.pages.pop().unwrap();
            contents[page as usize] = contents[old as usize][..offset].to_vec();
            pool.release(old).unwrap();
            s.pages.push(page);
        }
        let page = *s.pages.last().unwrap();
        assert!(pool.is_exclusive(page), "a shared page is written");
        assert_eq!(contents[page as usize].len(), offset);
        contents[page as usize].push(token);
        s.tokens.push(token);
    }
    pool.publish(&s.tokens, &s.pages).unwrap();
    true
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn nothing_leaks_and_no_shared_page_is_written(ops in proptest::collection::vec(op(), 1..60)) {
        let mut pool = PagePool::new(24);
        let mut contents: Contents = vec![Vec::new(); 24];
        let mut live: Vec<Sequence> = Vec::new();
        for op in ops {
            match op {
                Op::Start { salt, len } => {
                    let text = tokens(len, salt);
                    let (pages, matched) = pool.lookup_prefix(&text);
                    prop_assert!(matched < len && matched == pages.len() * PAGE);
                    let mut s = Sequence { tokens: text[..matched].to_vec(), pages };
                    append(&mut pool, &mut contents, &mut s, &text[matched..]);
                    live.push(s);
                }
                Op::Grow { which, len } if !live.is_empty() => {
                    let which = which % live.len();
                    let more = tokens(len, live[which].tokens.len() as u32 % 3);
                    append(&mut pool, &mut contents, &mut live[which], &more);
                }
                Op::End { which } if !live.is_empty() => {
                    let which = which % live.len();
                    let s = live.swap_remove(which);
                    s.pages.iter().rev().for_each(|&p| pool.release(p).unwrap());
                }
                Op::Fork { which } if !live.is_empty() => {
                    let s = live[which % live.len()].clone();
                    s.pages.iter().for_each(|&p| pool.retain(p).unwrap());
                    live.push(s);
                }
                Op::Clear => pool.clear_prefixes(),
                _ => {}
            }
            // Every sequence still reads its own tokens, and the counts add up.
            for s in &live {
                let read: Vec<u32> = s
                    .pages
                    .iter()
                    .flat_map(|&p| contents[p as usize].iter().copied())
                    .take(s.tokens.len())
                    .collect();
                prop_assert_eq!(&read, &s.tokens);
            }
            let mut held: Vec<_> = live.iter().flat_map(|s| s.pages.iter().copied()).collect();
            held.sort_unstable();
            held.dedup();
            prop_assert_eq!(pool.held(), held.len());
            prop_assert_eq!(pool.total(), 24);
        }
        for s in live.drain(..) {
            s.pages.iter().rev().for_each(|&p| pool.release(p).unwrap());
        }
        prop_assert_eq!(pool.held(), 0);
        // Everything can be had again.
        for _ in 0..24 {
            prop_assert!(pool.alloc().is_ok());
        }
    }
}
