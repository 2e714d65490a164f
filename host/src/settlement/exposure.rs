//! How far a provider trusts a payer: what it has computed and holds no voucher for.

use potluck_primitives::MicroCredits;

/// What was computed for a payer, what of it is vouched for, and how far the two may be apart.
///
/// All three are in microcredits. A provider counts its work as it does it and stops, in the middle of an answer if
/// need be, when the next piece would take it beyond the cap: what it can lose to a payer who never signs is the cap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exposure {
    /// What the work on the lane is worth so far.
    pub owed: MicroCredits,
    /// What the best voucher of the lane says.
    pub vouched: MicroCredits,
    /// The most that `owed` may be beyond `vouched`.
    pub cap: MicroCredits,
}

/// More work would be beyond the cap: wait for a voucher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "work for {open} credits is not vouched for, and {cap} is the most: the payer has to send a voucher first"
)]
pub struct Stop {
    /// What would not be vouched for.
    pub open: MicroCredits,
    /// The most that may not be.
    pub cap: MicroCredits,
}

impl Exposure {
    /// No work yet on a lane whose best voucher says `vouched`.
    pub fn new(vouched: MicroCredits, cap: MicroCredits) -> Self {
        Self { owed: vouched, vouched, cap }
    }

    /// What is not vouched for.
    pub fn open(&self) -> MicroCredits {
        self.owed.checked_sub(self.vouched).unwrap_or_default()
    }

    /// Counts a piece of work before it is done.
    ///
    /// # Errors
    /// [`Stop`] when it would be beyond the cap; it is then not counted.
    pub fn work(&mut self, worth: MicroCredits) -> Result<(), Stop> {
        let most = MicroCredits(u128::MAX);
        let owed = self.owed.checked_add(worth).unwrap_or(most);
        let open = owed.checked_sub(self.vouched).unwrap_or_default();
        if open > self.cap {
            return Err(Stop { open, cap: self.cap });
        }
        self.owed = owed;
        Ok(())
    }

    /// Takes note of a voucher; one that says less than an earlier one changes nothing.
    pub fn voucher(&mut self, cumulative: MicroCredits) {
        self.vouched = self.vouched.max(cumulative);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_stops_at_the_cap_and_goes_on_with_a_voucher() {
        let mut exposure = Exposure::new(MicroCredits(100), MicroCredits(10));
        exposure.work(MicroCredits(10)).unwrap();
        let stop = exposure.work(MicroCredits(1)).unwrap_err();
        assert_eq!((stop.open, exposure.open()), (MicroCredits(11), MicroCredits(10)));
        exposure.voucher(MicroCredits(105));
        exposure.work(MicroCredits(5)).unwrap();
        assert!(exposure.work(MicroCredits(1)).is_err());
        exposure.voucher(MicroCredits(50));
        assert_eq!(exposure.vouched, MicroCredits(105), "an old voucher takes nothing back");
        assert!(exposure.work(MicroCredits(u128::MAX)).is_err());
    }

    #[test]
    fn a_payer_who_pays_ahead_is_owed_nothing_and_gets_that_much_more() {
        let mut exposure = Exposure::new(MicroCredits(0), MicroCredits(5));
        exposure.voucher(MicroCredits(100));
        assert_eq!(exposure.open(), MicroCredits(0));
        exposure.work(MicroCredits(105)).unwrap();
        assert!(exposure.work(MicroCredits(1)).is_err());
    }
}
