//! `preview check`.

mod collect;

use std::path::{Path, PathBuf};

use clap::Args;
use innkeeper_model::preview::Meta;
use innkeeper_model::preview::check::{CheckSettings, CheckedConfig};
use innkeeper_model::preview::sources::{FileTypes, SourcePath, SourceTree};
use innkeeper_model::{Code, Failure, Kind};

use crate::context::Context;
use crate::describe::count;
use crate::failure::{CommandError, Status};
use crate::output::Finding;

/// Check a preview-config.nix on this host before it is pushed
///
/// Evaluates the file, with the files that it refers to, as the host does for a pull request, but builds and starts nothing.
/// Lists every problem with its line and column, and exits with 6 if one exists. Reads the files as they are on disk, and
/// sends them to the daemon.
#[derive(Args, Debug)]
pub(crate) struct Check {
    /// The file, or the directory of the repository that contains it
    #[arg(default_value = ".")]
    path: PathBuf,

    /// Root of the repository, for a file in a folder of it
    #[arg(long, value_name = "DIR")]
    repository: Option<PathBuf>,
}

impl Check {
    pub(crate) async fn run(self, cx: &Context) -> Status {
        let (root, main) = self.place()?;
        let settings: CheckSettings = cx.client.get("/v1/preview-checks").await?;
        let types = FileTypes::with(&settings.file_types);
        let types = types.map_err(|error| Failure::from(&error))?;
        let sources = collect::collect(&root, &main, &types)?;
        let checked: CheckedConfig = cx.client.post("/v1/preview-checks", &sources).await?;
        if cx.output.is_json() {
            cx.output.value(&checked)?;
        } else {
            print(cx, &main, &checked)?;
        }
        Ok(match checked.problems.is_empty() {
            true => 0,
            false => Kind::Build.exit_code(),
        })
    }

    /// Returns the root of the repository and the path of the file in it.
    fn place(&self) -> Result<(PathBuf, SourcePath), Failure> {
        let is_folder = self.path.is_dir();
        let file = match is_folder {
            true => self.path.join(SourceTree::MAIN),
            false => self.path.clone(),
        };
        let folder = file.parent().filter(|folder| *folder != Path::new(""));
        let root = (self.repository.as_deref())
            .or(folder)
            .unwrap_or(Path::new("."));
        let refuse = |problem: &str| {
            let message = format!("cannot check {}: {problem}", file.display());
            Failure::new(Code::InvalidRequest, message).with_remedy(
                "Name the file or its directory; `preview init` writes one, and `--repository` names the root.",
            )
        };
        if !file.is_file() {
            return Err(refuse("the file does not exist"));
        }
        let (whole, inside) = match (file.canonicalize(), root.canonicalize()) {
            (Ok(file), Ok(root)) => (root.clone(), file.strip_prefix(&root).map(Path::to_owned)),
            _ => return Err(refuse("it cannot be read")),
        };
        let main = inside
            .ok()
            .and_then(|path| SourcePath::parse(path.to_str()?).ok());
        let main = main.ok_or_else(|| refuse("it is not in the repository"))?;
        Ok((whole, main))
    }
}

fn print(cx: &Context, main: &SourcePath, checked: &CheckedConfig) -> Result<(), CommandError> {
    for problem in &checked.problems {
        cx.output
            .finding(Finding::Broken, &problem.text, problem.remedy.as_deref())?;
    }
    match (&checked.preview, checked.problems.len()) {
        (Some(meta), 0) => cx
            .output
            .ok(format_args!("{main} is valid: {}.", summary(meta))),
        (None, 0) => cx.output.ok(format_args!(
            "{main} can be evaluated. A build makes its metadata, whose fields are checked then."
        )),
        (_, problems) => cx
            .output
            .text(format_args!("{main} has {}.\n", count(problems, "problem"))),
    }
}

/// Returns the services, the database and the ports of a preview.
fn summary(meta: &Meta) -> String {
    let services: Vec<_> = (meta.app_services.iter())
        .map(|service| service.as_str().trim_end_matches(".service"))
        .collect();
    let routes: Vec<_> = (meta.routes.iter())
        .map(|route| format!("{} on port {}", route.path, route.port))
        .collect();
    let database = match meta.database {
        innkeeper_model::preview::DatabaseMode::Host => ", with a database on the host",
        innkeeper_model::preview::DatabaseMode::Container => "",
    };
    format!(
        "{} {} {}{database}",
        services.join(", "),
        if services.len() == 1 {
            "serves"
        } else {
            "serve"
        },
        routes.join(", ")
    )
}
