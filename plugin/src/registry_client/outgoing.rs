//! What is sent with a request: nothing, a text that can be sent again, or pieces as they come, which can't.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::body::{Body, Bytes, Frame, SizeHint};
use tokio::sync::mpsc;

/// Pieces on their way, of which few are held at a time.
const ON_THE_WAY: usize = 4;

/// The body of a request.
pub(crate) enum Outgoing {
    Nothing,
    Whole(Bytes),
    /// A known number of bytes. If fewer come, the request is broken off and the other side has nothing whole.
    Pieces(Pieces),
}

/// Bytes that somebody else provides meanwhile.
pub(crate) struct Pieces {
    from: mpsc::Receiver<Bytes>,
    left: u64,
}

impl Pieces {
    /// So many bytes, and where to put them in.
    pub(crate) fn of(size: u64) -> (mpsc::Sender<Bytes>, Self) {
        let (into, from) = mpsc::channel(ON_THE_WAY);
        (into, Self { from, left: size })
    }
}

impl From<Vec<u8>> for Outgoing {
    fn from(text: Vec<u8>) -> Self {
        Self::Whole(text.into())
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = self.get_mut();
        match this {
            Self::Nothing => Poll::Ready(None),
            Self::Whole(text) => {
                let text = std::mem::take(text);
                *this = Self::Nothing;
                Poll::Ready((!text.is_empty()).then(|| Ok(Frame::data(text))))
            }
            Self::Pieces(pieces) if pieces.left == 0 => Poll::Ready(None),
            Self::Pieces(pieces) => {
                let Poll::Ready(piece) = pieces.from.poll_recv(context) else { return Poll::Pending };
                let Some(piece) = piece else { return Poll::Ready(Some(Err(ended("before its end")))) };
                match pieces.left.checked_sub(piece.len() as u64) {
                    Some(left) => pieces.left = left,
                    None => return Poll::Ready(Some(Err(ended("behind its end")))),
                }
                Poll::Ready(Some(Ok(Frame::data(piece))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Nothing => true,
            Self::Whole(text) => text.is_empty(),
            Self::Pieces(pieces) => pieces.left == 0,
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(match self {
            Self::Nothing => 0,
            Self::Whole(text) => text.len() as u64,
            Self::Pieces(pieces) => pieces.left,
        })
    }
}

fn ended(where_: &str) -> io::Error {
    io::Error::other(format!("what is sent stops {where_}"))
}
