//! `tidegate plan` and `tidegate apply`.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;
use tidegate_proto::v1::PlanResponse;

use crate::args::Common;
use crate::cluster::Cluster;
use crate::commands::doctor;
use crate::failure::{Failure, Result};
use crate::output::{self, Format};
use crate::table::Rows;
use crate::views::CheckView;

/// Shown at the end of `plan --help`.
pub(crate) const PLAN_EXAMPLE: &str = "\
Example:
  tidegate plan -f orders.toml      # changes nothing

Ends with 1 when source or sinks are not ready for it.";
/// Shown at the end of `apply --help`.
pub(crate) const APPLY_EXAMPLE: &str = "\
Examples:
  tidegate apply -f orders.toml
  tidegate apply -f orders.toml --yes      # in a script

Asks before it changes or removes something that is there (--yes), and before it
applies what a check says will not work (--force). Applying the same file again
does nothing.";
/// No export file is longer.
const FILE_BYTES_MAX: usize = 1 << 20;

#[derive(Debug, Args)]
pub(crate) struct FileArgs {
    /// The export file (TOML); - for standard input
    #[arg(long, short, value_name = "FILE")]
    file: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct ApplyArgs {
    #[command(flatten)]
    file: FileArgs,
    /// Apply it although a check did not pass
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Serialize)]
struct PlanView {
    name: String,
    /// 0 when it would be created.
    version: u64,
    steps: Vec<StepView>,
    checks: Vec<CheckView>,
}

#[derive(Debug, Serialize)]
struct StepView {
    verb: String,
    what: String,
}

#[derive(Debug, Serialize)]
struct AppliedView {
    name: String,
    /// Before, 0 when it was created.
    replaced: u64,
    /// Now; the same when there was nothing to change.
    version: u64,
    steps: Vec<StepView>,
}

impl From<PlanResponse> for PlanView {
    fn from(plan: PlanResponse) -> Self {
        let step = |it: tidegate_proto::v1::PlanStep| StepView { verb: it.verb, what: it.what };
        Self {
            name: plan.name,
            version: plan.version,
            steps: plan.steps.into_iter().map(step).collect(),
            checks: plan.checks.into_iter().map(CheckView::from).collect(),
        }
    }
}

impl PlanView {
    /// Something that is there would change or go.
    fn alters(&self) -> bool {
        self.version != 0 && !self.steps.is_empty()
    }

    fn nothing_to_do(&self) -> bool {
        self.version != 0 && self.steps.is_empty()
    }
}

/// Shows what applying the file would change; fails if a check does not pass.
pub(crate) async fn plan(args: &FileArgs, mut cluster: Cluster, format: Format) -> Result<()> {
    let spec = read(&args.file)?;
    let plan = PlanView::from(cluster.plan(&spec).await?);
    output::show(format, &plan, table)?;
    doctor::verdict(&plan.checks)
}

/// Does what the file says, after showing the plan, and asking where it hurts.
pub(crate) async fn apply(args: &ApplyArgs, mut cluster: Cluster, common: &Common) -> Result<()> {
    let spec = read(&args.file.file)?;
    let plan = PlanView::from(cluster.plan(&spec).await?);
    if common.output == Format::Table {
        output::line(&table(&plan))?;
    }
    let version = if plan.nothing_to_do() {
        plan.version
    } else {
        if !agreed(&plan, args.force, common)? {
            output::note("nothing was changed");
            return Ok(());
        }
        cluster.apply(&spec, plan.version).await?
    };
    let PlanView { name, version: replaced, steps, .. } = plan;
    let document = AppliedView { name, replaced, version, steps };
    output::show(common.output, &document, |it| match (it.replaced, it.version) {
        (0, version) => format!("created export {} (version {version})", it.name),
        (old, new) if old == new => format!("export {} is as the file says", it.name),
        (_, version) => format!("changed export {} (version {version})", it.name),
    })
}

fn agreed(plan: &PlanView, force: bool, common: &Common) -> Result<bool> {
    if let Err(failed) = doctor::verdict(&plan.checks) {
        let question = format!("{failed}\nApply export {} all the same?", plan.name);
        let answer = output::ask(&question, (force, "--force"), common.output);
        // A script gets the checks as a document, as `plan` would have given them.
        if answer.is_err() && common.output == Format::Json {
            output::show(Format::Json, plan, table)?;
        }
        if !answer? {
            return Ok(false);
        }
    }
    let question = format!("Change export {} as planned?", plan.name);
    Ok(!plan.alters() || output::confirm(&question, common.yes, common.output)?)
}

fn table(plan: &PlanView) -> String {
    let head = match plan.version {
        0 => format!("export {}: new", plan.name),
        version => format!("export {}: version {version} is there", plan.name),
    };
    let mut steps = Rows::new(&["WOULD", "WHAT"]);
    for step in &plan.steps {
        steps.row([step.verb.clone(), step.what.clone()]);
    }
    let steps = steps.or("nothing to change");
    format!("{head}\n\n{steps}\n\n{}\n", doctor::table(&plan.checks))
}

fn read(path: &Path) -> Result<String> {
    let fail = |why: String| Failure::usage(format!("export file {}: {why}", path.display()));
    let bytes = if path == Path::new("-") {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut std::io::stdin(), &mut bytes).map(|_| bytes)
    } else {
        std::fs::read(path)
    };
    let bytes = bytes.map_err(|error| fail(error.to_string()))?;
    if bytes.len() > FILE_BYTES_MAX {
        return Err(fail("longer than 1 MiB; is it the right file?".to_owned()));
    }
    let text = String::from_utf8(bytes).map_err(|_| fail("not UTF-8 text".to_owned()))?;
    // Told here with line and column, before anybody is asked.
    text.parse::<toml::Table>().map_err(|error| fail(format!("not TOML: {error}")))?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(version: u64, steps: usize) -> PlanView {
        let step = |_| StepView { verb: "add".to_owned(), what: "sink a".to_owned() };
        let steps = (0..steps).map(step).collect();
        PlanView { name: "orders".to_owned(), version, steps, checks: Vec::new() }
    }

    #[test]
    fn only_what_is_there_can_be_altered() {
        assert!(!plan(0, 3).alters(), "creating asks nobody");
        assert!(plan(5, 1).alters());
        assert!(plan(5, 0).nothing_to_do() && !plan(0, 0).nothing_to_do());
    }

    #[test]
    fn a_file_that_is_no_toml_is_told_with_its_line() {
        let dir = std::env::temp_dir().join(format!("tidegate-cli-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("bad.toml");
        std::fs::write(&path, "name = \"a\"\nsource =\n").unwrap();
        let failure = read(&path).unwrap_err().to_string();
        std::fs::remove_dir_all(&dir).unwrap();
        assert!(failure.contains("line 2") && failure.contains("bad.toml"), "{failure}");
    }

    #[test]
    fn a_missing_file_is_named() {
        let failure = read(Path::new("/nowhere/x.toml")).unwrap_err().to_string();
        assert!(failure.contains("/nowhere/x.toml"), "{failure}");
    }
}
