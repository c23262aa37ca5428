//! Values that must never be printed.
//!
//! Private keys, passwords and tokens live in [`Sensitive`] from the moment they are read or made. It has no `Serialize`,
//! its `Debug` and `Display` say nothing, and its memory is cleared when it goes.

use std::fmt;
use std::hint::black_box;

use zeroize::Zeroize;

/// A value whose content is shown only by an explicit [`expose`](Self::expose).
///
/// Two values are compared without leaving early, so that the time taken tells nothing but their lengths.
#[derive(Clone)]
pub struct Sensitive<T: Zeroize>(T);

impl<T: Zeroize> Sensitive<T> {
    /// Takes charge of `value`. The caller must not keep a copy.
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// The content. Every call is a place to look at in a review: what it returns must not reach a log, an error, an
    /// event, a condition, a metric or an argument list.
    pub fn expose(&self) -> &T {
        &self.0
    }
}

impl<T: Zeroize> Drop for Sensitive<T> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl<T: Zeroize> From<T> for Sensitive<T> {
    fn from(value: T) -> Self {
        Self(value)
    }
}

impl<T: Zeroize> fmt::Debug for Sensitive<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl<T: Zeroize> fmt::Display for Sensitive<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl<T: Zeroize + AsRef<[u8]>> PartialEq for Sensitive<T> {
    fn eq(&self, other: &Self) -> bool {
        let (left, right) = (self.0.as_ref(), other.0.as_ref());
        left.len() == right.len() && left.iter().zip(right).fold(0, |seen, (l, r)| black_box(seen | (l ^ r))) == 0
    }
}

impl<T: Zeroize + AsRef<[u8]>> Eq for Sensitive<T> {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::rc::Rc;

    const PLANTED: &str = "correct-horse-battery";

    #[derive(Debug)]
    #[allow(dead_code)]
    struct Holder {
        user: &'static str,
        password: Sensitive<String>,
        nested: Option<Sensitive<Vec<u8>>>,
    }

    #[test]
    fn no_format_shows_the_content() {
        let secret = Sensitive::new(PLANTED.to_string());
        let holder = Holder { user: "ann", password: secret.clone(), nested: Some(PLANTED.as_bytes().to_vec().into()) };

        for text in [format!("{secret}"), format!("{secret:?}"), format!("{secret:#?}"), format!("{secret:>60}")] {
            assert_eq!(text, "[redacted]");
        }
        for text in [format!("{holder:?}"), format!("{holder:#?}")] {
            assert!(text.contains("ann"), "{text}");
            assert!(!text.contains(PLANTED), "{text}");
            assert!(!text.contains("99, 111, 114"), "the bytes of the planted value: {text}");
        }
    }

    #[test]
    fn expose_gives_the_content() {
        assert_eq!(Sensitive::new(PLANTED.to_string()).expose(), PLANTED);
    }

    #[test]
    fn values_are_equal_when_every_byte_is() {
        let secret = |text: &str| Sensitive::new(text.to_string());
        for (left, right, equal) in [
            ("", "", true),
            ("a", "a", true),
            (PLANTED, PLANTED, true),
            ("a", "b", false),
            ("ab", "a", false),
            ("", "a", false),
            ("xa", "xb", false),
            ("ax", "bx", false),
            // Differences that would cancel out under a plain exclusive or of everything.
            ("ab", "ba", false),
        ] {
            assert_eq!(secret(left) == secret(right), equal, "{left:?} and {right:?}");
        }
    }

    #[test]
    fn the_memory_is_cleared_when_the_value_goes() {
        struct Witness(Rc<RefCell<Vec<u8>>>);
        impl Zeroize for Witness {
            fn zeroize(&mut self) {
                self.0.borrow_mut().zeroize();
            }
        }
        let memory = Rc::new(RefCell::new(PLANTED.as_bytes().to_vec()));

        drop(Sensitive::new(Witness(memory.clone())));

        assert!(memory.borrow().is_empty());
    }
}
