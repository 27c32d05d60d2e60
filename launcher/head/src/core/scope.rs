//! Which tasks are this head's to run, where the plan has several gangs: those of its own gang and what earlier ones left open.
//! Those of later gangs wait, and what they take is kept. Owns that choice; the plan is the planner's.

use super::Core;
use bridgehead_plan::LaunchPlan;
use bridgehead_spec::TaskId;
use std::collections::BTreeSet;

/// A gang of a plan.
#[derive(Debug)]
pub(super) struct Scope {
    plan: LaunchPlan,
    gang: u32,
    /// Waiting tasks of later gangs.
    later: BTreeSet<u64>,
}

impl Core {
    /// This head runs the tasks of `plan` up to `gang`, and none of later gangs.
    pub fn set_gang(&mut self, plan: LaunchPlan, gang: u32) {
        let later = BTreeSet::new();
        self.scope = Some(Scope { plan, gang, later });
    }

    /// Keeps a task of a later gang; `false` if it is this head's to run.
    pub(super) fn keep_for_later(&mut self, task: u64) -> bool {
        if self.scope.is_none() {
            return false;
        }
        let of = self.pipeline_task_behind(task);
        let Some(scope) = &mut self.scope else { return false };
        let later = scope.plan.gang_of(TaskId(of)).is_some_and(|gang| gang > scope.gang);
        if later {
            scope.later.insert(task);
        }
        later
    }

    /// Whether a task waits for a later gang.
    pub(super) fn is_later(&self, task: u64) -> bool {
        self.scope.as_ref().is_some_and(|scope| scope.later.contains(&task))
    }

    /// The task of the pipeline that added `task`, directly or not; itself if it is one.
    fn pipeline_task_behind(&self, mut task: u64) -> u64 {
        while task >= self.pipeline_tasks {
            let parent = self.added.get(&task).and_then(|added| added.submit.as_ref()?.parent);
            match parent.filter(|&parent| parent < task) {
                Some(parent) => task = parent,
                None => break, // It was added in this attempt, by a task that runs in it.
            }
        }
        task
    }

    /// A task has its outcome.
    pub(super) fn drop_from_later(&mut self, task: u64) {
        if let Some(scope) = &mut self.scope {
            scope.later.remove(&task);
        }
    }

    /// Pauses the run for the next gang once this one has nothing left to do. Later tasks that have become impossible fail, so
    /// that no allocation is asked for in vain.
    pub(super) fn end_gang_if_done(&mut self) {
        let Some(scope) = &self.scope else { return };
        let later = scope.later.len() as u64;
        if later == 0 || self.open_tasks() != later || self.is_cancelling() || self.is_pausing() {
            return;
        }
        for task in self.in_order(scope.later.iter().copied().collect()) {
            if let Some(failure) = self.first_upstream(task) {
                self.finish_failed(task, failure);
            }
        }
        if self.open_tasks() > 0 {
            let end = self.allocation.and_then(|allocation| allocation.tasks_end_ns());
            let message = "this gang has done its part; what is left is of later ones";
            self.drain("gang", message, end.unwrap_or(u64::MAX));
        }
    }
}
