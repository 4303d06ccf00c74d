//! An app as `preview-config.nix` describes it, and the text of the file.

/// The options of an app.
#[derive(Debug, Default)]
pub(super) struct App {
    /// Names of packages, without `pkgs.`.
    pub(super) packages: Vec<&'static str>,
    /// Variables and their values, as Nix expressions.
    pub(super) environment: Vec<(&'static str, &'static str)>,
    pub(super) setup: Vec<String>,
    pub(super) seed: Option<String>,
    pub(super) run: Vec<String>,
    /// Names and commands.
    pub(super) workers: Vec<(&'static str, String)>,
    pub(super) port: u16,
    pub(super) health_path: Option<&'static str>,
    pub(super) has_database: bool,
    /// More options beside the app, as Nix.
    pub(super) rest: &'static str,
    /// Assumptions that the author must check.
    pub(super) notes: Vec<String>,
}

impl App {
    /// Returns the text of the file.
    pub(super) fn render(&self) -> String {
        let mut text = String::new();
        let uses_lib = self.rest.contains("lib.")
            || (self.environment.iter()).any(|(_, value)| value.contains("lib."));
        text.push_str(match uses_lib {
            true => "{ lib, pkgs, ... }:\n{\n",
            false => "{ pkgs, ... }:\n{\n",
        });
        text.push_str("  innkeeper.preview.app = {\n");
        for line in self.options().lines() {
            let indent = if line.is_empty() { "" } else { "    " };
            text.push_str(&format!("{indent}{line}\n"));
        }
        text.push_str("  };\n");
        text.push_str(self.rest);
        text.push_str("}\n");
        text
    }

    fn options(&self) -> String {
        let mut options = String::new();
        match self.packages.as_slice() {
            [] => {}
            [only] => options.push_str(&format!("packages = [ pkgs.{only} ];\n")),
            all => {
                options.push_str("packages = [\n");
                for package in all {
                    options.push_str(&format!("  pkgs.{package}\n"));
                }
                options.push_str("];\n");
            }
        }
        match self.environment.as_slice() {
            [] => {}
            [(name, value)] => options.push_str(&format!("environment.{name} = {value};\n")),
            all => {
                options.push_str("environment = {\n");
                for (name, value) in all {
                    options.push_str(&format!("  {name} = {value};\n"));
                }
                options.push_str("};\n");
            }
        }
        options.push_str(&commands("setup", &self.setup));
        options.push_str(&commands("seed", self.seed.as_slice()));
        options.push_str(&commands("run", &self.run));
        for (name, command) in &self.workers {
            let option = format!("workers.{name}");
            options.push_str(&commands(&option, std::slice::from_ref(command)));
        }
        options.push_str(&format!("port = {};\n", self.port));
        if let Some(path) = self.health_path {
            options.push_str(&format!("healthPath = \"{path}\";\n"));
        }
        if self.has_database {
            options.push_str("database = \"host\";\n");
        }
        options
    }
}

/// Returns an option with commands; the empty string without commands.
fn commands(name: &str, lines: &[String]) -> String {
    match lines {
        [] => String::new(),
        [only] => format!("{name} = \"{}\";\n", quoted(only)),
        all => {
            let lines: String = (all.iter())
                .map(|line| format!("  {}\n", line.replace("''", "'''").replace("${", "''${")))
                .collect();
            format!("{name} = ''\n{lines}'';\n")
        }
    }
}

/// Escapes a text for a string of Nix in double quotes.
fn quoted(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace("${", "\\${")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_escaped_for_nix() {
        let one = |line: &str| commands("run", &[line.to_owned()]);
        assert_eq!(
            one(r#"a "b" \ ${c} $d"#),
            "run = \"a \\\"b\\\" \\\\ \\${c} $d\";\n"
        );
        let two = ["echo ''${x}''".to_owned(), "b".to_owned()];
        assert_eq!(
            commands("run", &two),
            "run = ''\n  echo '''''${x}'''\n  b\n'';\n"
        );
    }
}
