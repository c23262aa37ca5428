//! The body of an answer, cut off where it would cost too much: too many bytes, a long silence, or no end at all.
//!
//! What an object holds is up to whoever may write it, so a list may be of any size; and what stands between us and the API server may swallow the
//! rest of an answer without a word. Bytes are counted as they are kept, after decompression.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::StatusCode;
use hyper::body::{Body as HttpBody, Bytes, Frame, SizeHint};
use kube::client::Body;
use tokio::time::{Instant, Sleep};

use super::{Call, GateError};

const MIB: u64 = 1 << 20;
/// A list: about 150 of the largest objects that this operator writes itself. Lists of what others write come in pages.
const LIST: u64 = 8 * MIB;
/// Anything else: an object has 1.5 MiB at most where it is stored, and grows by a third as base64.
const SINGLE: u64 = 4 * MIB;
/// Silence in the middle of a body.
const SILENCE: Duration = Duration::from_secs(20);
/// A whole body, from its headers on.
const WHOLE: Duration = Duration::from_secs(60);

type Error = Box<dyn std::error::Error + Send + Sync>;

/// What one answer may cost.
pub(super) struct Allowance {
    verb: &'static str,
    kind: &'static str,
    bytes: u64,
}

impl Allowance {
    /// `None`: the stream of a watch, which its reader limits.
    pub(super) fn of(call: &Call, status: StatusCode) -> Option<Self> {
        let bytes = match call.verb {
            "watch" if status.is_success() => return None,
            "list" => LIST,
            _ => SINGLE,
        };
        Some(Self { verb: call.verb, kind: call.kind, bytes })
    }
}

/// A body within its allowance.
pub(super) struct Bounded {
    body: Body,
    limits: Option<Limits>,
}

struct Limits {
    allowance: Allowance,
    received: u64,
    until: Instant,
    pause: Pin<Box<Sleep>>,
}

impl Bounded {
    pub(super) fn new(body: Body, allowance: Option<Allowance>) -> Self {
        let limits = allowance.map(|allowance| {
            let now = Instant::now();
            let pause = Box::pin(tokio::time::sleep_until(now + SILENCE));
            Limits { allowance, received: 0, until: now + WHOLE, pause }
        });
        Self { body, limits }
    }
}

impl Limits {
    /// Counts what came. It may be the last that fits.
    fn take(&mut self, bytes: usize) -> Result<(), GateError> {
        self.received = self.received.saturating_add(bytes as u64);
        let Allowance { verb, kind, bytes: limit } = self.allowance;
        if self.received > limit {
            return Err(GateError::TooLarge { verb, kind, limit });
        }
        self.pause.as_mut().reset(self.until.min(Instant::now() + SILENCE));
        Ok(())
    }
}

impl HttpBody for Bounded {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        let polled = Pin::new(&mut this.body).poll_frame(context);
        let Some(limits) = &mut this.limits else { return polled.map_err(Into::into) };
        match polled {
            Poll::Ready(Some(Ok(frame))) => {
                let taken = limits.take(frame.data_ref().map_or(0, Bytes::len));
                Poll::Ready(Some(taken.map(|()| frame).map_err(Into::into)))
            }
            Poll::Ready(other) => Poll::Ready(other.map(|frame| frame.map_err(Into::into))),
            Poll::Pending => {
                let stalled = GateError::Stalled(limits.received);
                limits.pause.as_mut().poll(context).map(|()| Some(Err(stalled.into())))
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}
