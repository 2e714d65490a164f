//! Verdicts: from the signatures of verifiers to a slash, by way of an appeal.

use frame_support::{pallet_prelude::*, traits::fungible::MutateHold as _, traits::tokens::Precision};
use potluck_primitives::{MicroCredits, SignedVerdict, VerdictError};
use sp_runtime::AccountId32;

use crate::{
    Case, Cases, Config, Error, Event, HoldReason, Job, Judged, MAX_CASES, OpenCases, Pallet, Settings,
    SlashingPolicies as _, Stage, Stakes,
};

impl<T: Config> Pallet<T> {
    pub(crate) fn do_submit_verdict(signed: &SignedVerdict) -> DispatchResult {
        let verdict = &signed.verdict;
        let settings = Settings::<T>::get();
        let provider = AccountId32::new(verdict.provider);
        ensure!(verdict.parts > 0, Error::<T>::BadParts);
        ensure!(!Judged::<T>::contains_key(&provider, verdict.job), Error::<T>::AlreadyJudged);
        ensure!(
            Stakes::<T>::get(&provider).total().is_some_and(|total| total > 0),
            Error::<T>::NothingAtStake
        );
        ensure!(T::Policies::in_force(&verdict.policy, verdict.at.0), Error::<T>::NotApproved);
        let drawn = Self::draw(&verdict.provider, &verdict.job, verdict.at.0)?;
        signed.verify(&Self::genesis(), &drawn, settings.quorum).map_err(|error| match error {
            VerdictError::Parts => Error::<T>::BadParts,
            VerdictError::Order => Error::<T>::BadOrder,
            VerdictError::Stranger(_) => Error::<T>::Stranger,
            VerdictError::Forged(_) => Error::<T>::Forged,
            VerdictError::TooFew { .. } => Error::<T>::TooFew,
        })?;
        OpenCases::<T>::try_mutate(&provider, |open| {
            ensure!(*open < MAX_CASES, Error::<T>::TooManyCases);
            *open = open.checked_add(1).ok_or(Error::<T>::Overflow)?;
            Ok::<_, DispatchError>(())
        })?;
        let until = Self::now().checked_add(settings.appeal_window).ok_or(Error::<T>::Overflow)?;
        let signers =
            BoundedVec::truncate_from(signed.signatures.iter().map(|(account, _)| *account).collect());
        Judged::<T>::insert(&provider, verdict.job, ());
        let case = Case { verdict: verdict.clone(), signers, stage: Stage::Open { until } };
        Cases::<T>::insert(&provider, verdict.job, case);
        Self::deposit_event(Event::VerdictSubmitted {
            provider,
            job: verdict.job,
            evidence: verdict.evidence,
            parts: verdict.parts,
            until,
        });
        Ok(())
    }

    pub(crate) fn do_appeal(who: &AccountId32, job: Job) -> DispatchResult {
        let settings = Settings::<T>::get();
        Cases::<T>::try_mutate(who, job, |case| {
            let case = case.as_mut().ok_or(Error::<T>::UnknownVerdict)?;
            let Stage::Open { until } = case.stage else { return Err(Error::<T>::NotOpen.into()) };
            let now = Self::now();
            ensure!(now <= until, Error::<T>::TooLate);
            let (bond, until) = (settings.appeal_bond, now.checked_add(settings.ruling_window));
            let until = until.ok_or(Error::<T>::Overflow)?;
            T::Credits::hold(&HoldReason::AppealBond.into(), who, bond)?;
            case.stage = Stage::Appealed { until, bond };
            Self::deposit_event(Event::Appealed { provider: who.clone(), job, bond, until });
            Ok(())
        })
    }

    pub(crate) fn do_rule(provider: &AccountId32, job: Job, upheld: bool) -> DispatchResult {
        let mut case = Cases::<T>::get(provider, job).ok_or(Error::<T>::UnknownVerdict)?;
        let Stage::Appealed { bond, .. } = case.stage else { return Err(Error::<T>::NotAppealed.into()) };
        if upheld {
            Self::pay_held(HoldReason::AppealBond, provider, &T::Treasury::get(), bond)?;
            case.stage = Stage::Upheld;
            Cases::<T>::insert(provider, job, case);
        } else {
            T::Credits::release(&HoldReason::AppealBond.into(), provider, bond, Precision::Exact)?;
            Self::close(provider, job)?;
        }
        Self::deposit_event(Event::Ruled { provider: provider.clone(), job, upheld });
        Ok(())
    }

    pub(crate) fn do_execute(provider: &AccountId32, job: Job) -> DispatchResult {
        let case = Cases::<T>::get(provider, job).ok_or(Error::<T>::UnknownVerdict)?;
        let (now, treasury) = (Self::now(), T::Treasury::get());
        match case.stage {
            Stage::Open { until } => ensure!(now > until, Error::<T>::TooEarly),
            Stage::Appealed { until, bond } => {
                ensure!(now > until, Error::<T>::TooEarly);
                Self::pay_held(HoldReason::AppealBond, provider, &treasury, bond)?;
            }
            Stage::Upheld => {}
        }
        let mut stake = Stakes::<T>::get(provider);
        let total = MicroCredits(stake.total().ok_or(Error::<T>::Overflow)?);
        let slashed = total.checked_parts(case.verdict.parts).ok_or(Error::<T>::BadParts)?.0;
        let taken = stake.take(slashed);
        let active = stake.active;
        if stake.total() == Some(0) {
            Stakes::<T>::remove(provider);
        } else {
            Stakes::<T>::insert(provider, stake);
        }
        // What does not divide among those who signed is the treasury's.
        let count = case.signers.len() as u128;
        let each = Settings::<T>::get().signer_share.mul_floor(taken).checked_div(count).unwrap_or(0);
        for signer in &case.signers {
            Self::pay_held(HoldReason::Stake, provider, &AccountId32::new(*signer), each)?;
        }
        let signers = each.checked_mul(count).ok_or(Error::<T>::Overflow)?;
        let rest = taken.checked_sub(signers).ok_or(Error::<T>::Overflow)?;
        Self::pay_held(HoldReason::Stake, provider, &treasury, rest)?;
        Self::close(provider, job)?;
        Self::note_stake(provider, active);
        Self::deposit_event(Event::Slashed { provider: provider.clone(), job, slashed: taken, signers });
        Ok(())
    }

    /// Nothing waits any more. That the provider was judged for the job stays known.
    fn close(provider: &AccountId32, job: Job) -> DispatchResult {
        Cases::<T>::remove(provider, job);
        OpenCases::<T>::try_mutate_exists(provider, |open| {
            let left = open.unwrap_or(0).checked_sub(1).ok_or(Error::<T>::Overflow)?;
            *open = Some(left).filter(|left| *left > 0);
            Ok(())
        })
    }
}
