//! Writes docs/troubleshooting.md from the planner's reasons: `slipway-reasons FILE [--check]`.

use slipway_plan::Reason;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (Some(file), check) = (arguments.next(), arguments.next().as_deref() == Some("--check")) else {
        eprintln!("usage: slipway-reasons FILE [--check]");
        return ExitCode::from(2);
    };
    let wanted = page();
    if check {
        if std::fs::read_to_string(&file).is_ok_and(|found| found == wanted) {
            return ExitCode::SUCCESS;
        }
        eprintln!("{file} is not what the planner's reasons say");
        return ExitCode::FAILURE;
    }
    if let Err(error) = std::fs::write(&file, wanted) {
        eprintln!("cannot write {file}: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn page() -> String {
    let rows: String = Reason::ALL.iter().map(|reason| format!("| `{}` | {} |\n", reason.as_str(), reason.explain())).collect();
    format!(
        "# Troubleshooting\n\n\
         Every condition and every wait has a reason. `slipway describe NAME` shows them with the machine, the last error and the next try;\n\
         `slipway logs MACHINE UNIT` shows a unit's journal, `slipway logs management-cp-0 slipway-operator.service` the operator's.\n\n\
         | reason | what it means and what to do |\n|---|---|\n{rows}"
    )
}
