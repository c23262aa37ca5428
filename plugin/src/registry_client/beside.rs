//! Several connections that share work: each has one request at a time, and the next item when it is done with one.

use std::cell::RefCell;
use std::collections::VecDeque;

use anyhow::Result;
use futures::future::try_join_all;

/// How many at a time: more than that no registry of one's own thanks anybody for.
const CONNECTIONS: usize = 4;

/// Does something for each item, with as many of what `open` gives. The first failure ends all; results are in the order of the items.
pub(crate) async fn each<S, I, O>(
    open: impl Fn() -> S,
    items: impl IntoIterator<Item = I>,
    work: impl AsyncFn(&mut S, I) -> Result<O>,
) -> Result<Vec<O>> {
    let left: RefCell<VecDeque<_>> = RefCell::new(items.into_iter().enumerate().collect());
    let done = RefCell::new(Vec::new());
    let count = CONNECTIONS.min(left.borrow().len());
    let worker = async |mut side: S| -> Result<()> {
        loop {
            let next = left.borrow_mut().pop_front();
            let Some((number, item)) = next else { return Ok(()) };
            let result = work(&mut side, item).await?;
            done.borrow_mut().push((number, result));
        }
    };
    try_join_all((0..count).map(|_| worker(open()))).await?;
    let mut done = done.into_inner();
    done.sort_by_key(|(number, _)| *number);
    Ok(done.into_iter().map(|(_, result)| result).collect())
}
