//! How often something may happen.

use std::time::Duration;

use tokio::time::Instant;

/// A bucket that fills with time: each use takes a token, and without one the use is refused.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    size: u32,
    every: Duration,
    level: u32,
    filled: Instant,
}

impl Bucket {
    /// A full bucket of `size` tokens that gains one `every` so often.
    pub fn new(size: u32, every: Duration, now: Instant) -> Self {
        Self { size, every, level: size, filled: now }
    }

    /// Takes a token.
    ///
    /// # Errors
    /// How long to wait until there is one.
    pub fn take(&mut self, now: Instant) -> Result<(), Duration> {
        let passed = now.saturating_duration_since(self.filled);
        let gained = passed.as_nanos().checked_div(self.every.as_nanos()).unwrap_or(u128::MAX);
        let gained = u32::try_from(gained).unwrap_or(u32::MAX);
        if gained >= self.size - self.level {
            (self.level, self.filled) = (self.size, now);
        } else {
            self.level += gained;
            self.filled += self.every * gained;
        }
        match self.level.checked_sub(1) {
            Some(level) => {
                self.level = level;
                Ok(())
            }
            None => Err(self.every.saturating_sub(now.saturating_duration_since(self.filled))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_empties_and_fills() {
        let start = Instant::now();
        let mut bucket = Bucket::new(2, Duration::from_secs(10), start);
        assert_eq!((bucket.take(start), bucket.take(start)), (Ok(()), Ok(())));
        assert_eq!(bucket.take(start + Duration::from_secs(4)), Err(Duration::from_secs(6)));
        assert_eq!(bucket.take(start + Duration::from_secs(10)), Ok(()));
        assert!(bucket.take(start + Duration::from_secs(19)).is_err());
        for _ in 0..2 {
            assert!(bucket.take(start + Duration::from_secs(99)).is_ok());
        }
    }
}
