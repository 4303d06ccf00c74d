use clap::Command;

use crate::fake::{command, run};

#[test]
fn commands_have_pages() {
    let directory = tempfile::tempdir().expect("a directory");
    let out = directory.path().join("man/man1");
    let arguments = ["man", "--out", &out.display().to_string()];
    let stdout = run(command("innkeeper", &arguments)).ok();
    let mut expected = Vec::new();
    for program in innkeeper_cli::commands() {
        names(&program, "", &mut expected);
    }
    expected.extend(
        [
            "innkeeperd.8",
            "innkeeper-gateway.8",
            "innkeeper-webhook.8",
            "innkeeper-pages.8",
            "innkeeper-dns.8",
            "innkeeper-config.5",
        ]
        .map(str::to_owned),
    );
    expected.sort();
    let mut found: Vec<String> = std::fs::read_dir(&out)
        .expect("the directory")
        .map(|entry| {
            entry
                .expect("a file")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    found.sort();
    assert_eq!(found, expected);
    assert_eq!(
        stdout,
        format!(
            "[OK] {} manual pages written to {}.\n",
            found.len(),
            out.display()
        )
    );
    let page = std::fs::read_to_string(out.join("agent-create.1")).expect("a page");
    assert!(
        page.contains(".TH agent-create 1") && page.contains("wait\\-port"),
        "{page}"
    );
    for part in [
        ".SH \"EXIT STATUS\"\n",
        "\\fB5\\fR\nA resource is exhausted.\n",
        ".SH EXAMPLES\n",
        "\\fBagent create web \\-\\-wait\\fR\n",
        ".SH \"SEE ALSO\"\n",
    ] {
        assert!(page.contains(part), "{part}\n{page}");
    }
    let config = std::fs::read_to_string(out.join("innkeeper-config.5")).expect("a page");
    assert!(
        config.contains("\\fBpreviews.domain\\fR (default: \"\")\n"),
        "{config}"
    );
}

fn names(command: &Command, prefix: &str, names: &mut Vec<String>) {
    let name = format!("{prefix}{}", command.get_name());
    names.push(format!("{name}.1"));
    for below in command.get_subcommands() {
        self::names(below, &format!("{name}-"), names);
    }
}

#[test]
fn unwritable_directory_is_reported() {
    let run = run(command(
        "innkeeper",
        &["man", "--out", "/proc/nowhere", "--json"],
    ));
    assert_eq!(run.status, 1);
    assert!(run.failure().message.contains("/proc/nowhere"), "{run:?}");
}
