//! What was measured: by workload, subject and figure, all turns.

use std::collections::BTreeMap;

use crate::Values;
use crate::subject::Kind;

/// All that was measured.
#[derive(Debug, Default)]
pub(crate) struct Results {
    turns: BTreeMap<(&'static str, Kind), Vec<Values>>,
    /// Turns that don't count: the workload, the subject, and why.
    pub(crate) voids: Vec<(&'static str, Kind, String)>,
}

/// The middle one of several, and how far the others are apart, as a share of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Median {
    /// The middle one; of an even number the mean of the two.
    pub(crate) value: f64,
    /// From the least to the greatest.
    pub(crate) spread: f64,
}

impl Results {
    pub(crate) fn add(&mut self, workload: &'static str, kind: Kind, values: Values) {
        self.turns.entry((workload, kind)).or_default().push(values);
    }

    /// All turns, in order.
    pub(crate) fn turns(&self) -> impl Iterator<Item = (&(&'static str, Kind), &Vec<Values>)> {
        self.turns.iter()
    }

    /// The figures that a workload has, by name.
    pub(crate) fn figures(&self, workload: &str) -> Vec<&'static str> {
        let mut names: Vec<_> = self
            .turns
            .iter()
            .filter(|((name, _), _)| *name == workload)
            .flat_map(|(_, turns)| turns.iter().flat_map(|values| values.keys().copied()))
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Whether its first turn was void: it isn't asked again.
    pub(crate) fn is_lost(&self, workload: &str, kind: Kind) -> bool {
        let void = self.voids.iter().any(|(name, who, _)| (*name, *who) == (workload, kind));
        void && !self.subjects(workload).contains(&kind)
    }

    /// Who took part in it, and wasn't void each time.
    pub(crate) fn subjects(&self, workload: &str) -> Vec<Kind> {
        let of = self.turns.keys().filter(|(name, _)| *name == workload);
        of.map(|(_, kind)| *kind).collect()
    }

    pub(crate) fn median(
        &self,
        workload: &'static str,
        kind: Kind,
        figure: &str,
    ) -> Option<Median> {
        let turns = self.turns.get(&(workload, kind))?;
        median(turns.iter().filter_map(|values| values.get(figure).copied()).collect())
    }

    /// One subject's figure as a multiple of another one's.
    pub(crate) fn ratio(
        &self,
        workload: &'static str,
        figure: &str,
        (one, other): (Kind, Kind),
    ) -> Option<f64> {
        let other = self.median(workload, other, figure)?.value;
        Some(self.median(workload, one, figure)?.value / other).filter(|it| it.is_finite())
    }
}

fn median(mut values: Vec<f64>) -> Option<Median> {
    values.sort_by(f64::total_cmp);
    let (least, greatest) = (*values.first()?, *values.last()?);
    let upper = *values.get(values.len() / 2)?;
    let lower = *values.get((values.len() - 1) / 2)?;
    let value = f64::midpoint(lower, upper);
    let spread = if value == 0.0 { 0.0 } else { (greatest - least) / value };
    Some(Median { value, spread })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_is_not_the_mean() {
        assert_eq!(median(vec![9.0, 1.0, 2.0]), Some(Median { value: 2.0, spread: 4.0 }));
        assert_eq!(median(vec![3.0, 1.0]).map(|it| it.value), Some(2.0));
        assert_eq!(median(Vec::new()), None);
    }
}
