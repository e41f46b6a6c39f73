//! What was measured, by workload, program and round, and how it is summed up.

use std::collections::BTreeMap;

use crate::child::{Outcome, Values};
use crate::plan::{Kind, Plan, SYSTEM, Step};

/// A median with the smallest and the largest value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Middle {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Middle {
    /// Sums up values; `None` if there are none.
    pub fn of(mut values: Vec<f64>) -> Option<Middle> {
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let half = values.len() / 2;
        let median = match values.len() % 2 {
            1 => values[half],
            _ => f64::midpoint(values[half - 1], values[half]),
        };
        Some(Middle { median, min, max })
    }
}

/// All outcomes.
#[derive(Default)]
pub struct Figures {
    cells: BTreeMap<(usize, usize), BTreeMap<usize, Outcome>>,
}

impl Figures {
    /// Keeps the outcome of a step.
    pub fn add(&mut self, step: Step, outcome: Outcome) {
        self.cells.entry((step.task, step.program)).or_default().insert(step.round, outcome);
    }

    fn rounds(&self, task: usize, program: usize) -> impl Iterator<Item = (usize, &Outcome)> {
        self.cells.get(&(task, program)).into_iter().flatten().map(|(round, outcome)| (*round, outcome))
    }

    fn done(&self, task: usize, program: usize) -> impl Iterator<Item = (usize, &Values)> {
        self.rounds(task, program).filter_map(|(round, outcome)| match outcome {
            Outcome::Done(values) => Some((round, values)),
            Outcome::Died(_) | Outcome::Skipped(_) => None,
        })
    }

    /// Whether another round would end as the one before.
    pub fn is_hopeless(&self, task: usize, program: usize) -> bool {
        self.rounds(task, program).any(|(_, outcome)| !matches!(outcome, Outcome::Done(_)))
    }

    /// Why a cell has no figures, if it has none.
    pub fn why_empty(&self, task: usize, program: usize) -> Option<String> {
        if let Some(died) = self.died(task, program) {
            return Some(died.to_owned());
        }
        if self.done(task, program).next().is_some() {
            return None;
        }
        let skipped = self.rounds(task, program).find_map(|(_, outcome)| match outcome {
            Outcome::Skipped(why) => Some(format!("skipped: {why}")),
            _ => None,
        });
        Some(skipped.unwrap_or_else(|| "skipped: out of time".into()))
    }

    fn died(&self, task: usize, program: usize) -> Option<&str> {
        self.rounds(task, program).find_map(|(_, outcome)| match outcome {
            Outcome::Died(how) => Some(how.as_str()),
            _ => None,
        })
    }

    /// One value over all rounds.
    pub fn value(&self, task: usize, program: usize, key: &str) -> Option<Middle> {
        Middle::of(self.done(task, program).filter_map(|(_, values)| values.number(key)).collect())
    }

    /// One value as a multiple of another program's, taken round by round.
    pub fn ratio(&self, task: usize, program: usize, to: usize, key: &str) -> Option<Middle> {
        let base: BTreeMap<usize, f64> =
            self.done(task, to).filter_map(|(round, values)| Some((round, values.number(key)?))).collect();
        let ratios = self.done(task, program).filter_map(|(round, values)| {
            let base = base.get(&round).filter(|base| **base > 0.0)?;
            Some(values.number(key)? / base)
        });
        Middle::of(ratios.collect())
    }

    /// An error if a program died that has to live: all but the one that is compared with.
    pub fn verdict(&self, plan: &Plan) -> Result<(), String> {
        let own = |program: usize| !matches!(plan.programs[program].kind, Kind::Preload(_));
        let dead = self.cells.keys().filter(|(_, program)| own(*program)).find_map(|(task, program)| {
            let how = self.died(*task, *program)?;
            Some(format!("{}, {}: {how}", plan.programs[*program].name, plan.tasks[*task].name()))
        });
        if let Some(dead) = dead {
            return Err(dead);
        }
        if !(0..plan.tasks.len()).any(|task| self.done(task, SYSTEM).next().is_some()) {
            return Err("the system allocator was not measured".into());
        }
        Ok(())
    }
}
