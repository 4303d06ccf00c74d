//! The guest of a preview, from `tests/fixtures/preview-app` to its page.

use std::os::unix::fs::PermissionsExt;

use super::*;
use innkeeper_facilities::Evaluated;

use crate::evaluate::tests::{Workshop, app, workshop};

/// A guest whose closure was evaluated.
struct Preview {
    host: Host,
    units: Arc<dyn Units>,
    guest: Guest,
    shop: Workshop,
}

impl Preview {
    async fn boot(test: &str) -> Option<Self> {
        let shop = workshop(test)?;
        let made = evaluated(&shop, &app()).await;
        let mut host = Host::new(test).await?;
        host.closure = made.closure;
        let units = host.units().await;
        let guest = host.guest("web-7", "");
        boot(&units, &guest).await;
        await_line(&units, &guest, "web-7 is up.").await;
        Some(Self {
            host,
            units,
            guest,
            shop,
        })
    }

    /// Writes the app's environment, readable by root only.
    fn tell(&self, env: &str) {
        let file = self
            .host
            .config
            .root(&self.guest.name)
            .join("etc/preview.env");
        fs::write(&file, env).expect("written");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("closed");
    }

    async fn shell(&self, script: &str) -> String {
        shell(&self.units, &self.guest, script).await
    }

    async fn run(&self, command: &[&str]) -> (i32, String, String) {
        run(&self.units, &self.guest, &request(command)).await
    }

    async fn page(&self) -> String {
        self.shell("for try in $(seq 100); do wget -q -O - http://127.0.0.1:3000/ && break; usleep 50000; done")
            .await
    }
}

async fn evaluated(shop: &Workshop, config: &str) -> Evaluated {
    shop.evaluate(config).await.expect("evaluates")
}

#[tokio::test]
async fn preview_serves_its_page_and_keeps_data_on_update() {
    let Some(preview) = Preview::boot("a_preview_serves_its_page").await else {
        return;
    };
    preview.tell("PREVIEW_BRANCH=\"it's/a&b\"\nPREVIEW_COMMIT='a1'\n");
    assert_eq!(
        preview
            .shell("systemctl start preview-setup preview-app.service")
            .await,
        ""
    );
    assert_eq!(
        preview.page().await,
        "<h1>it's/a&b</h1><p>Commit a1, prepared 1 times.</p>"
    );
    assert_eq!(
        preview
            .shell("systemctl is-active preview-setup preview-app")
            .await,
        "active\nactive"
    );
    let shown = preview
        .shell("systemctl show -p Id,ActiveState,SubState,Result,MainPID preview-setup.service preview-app")
        .await;
    let pid = preview.shell("pidof httpd").await;
    assert_eq!(
        shown,
        format!(
            "Result=success\nMainPID=0\nId=preview-setup.service\nActiveState=active\nSubState=exited\n\n\
             Result=success\nMainPID={pid}\nId=preview-app.service\nActiveState=active\nSubState=running"
        )
    );
    assert_eq!(
        preview.shell("stat -c %U /proc/$(pidof httpd)").await,
        "preview"
    );
    assert_eq!(
        preview.shell("journalctl -u preview-setup -n 5").await,
        "prepared a1"
    );
    await_line(&preview.units, &preview.guest, "serving on port 3000").await;

    // A push: the same closure, another commit.
    preview.tell("PREVIEW_BRANCH='it'\nPREVIEW_COMMIT='b2'\n");
    preview
        .shell("systemctl restart preview-setup preview-app")
        .await;
    assert_eq!(
        preview.page().await,
        "<h1>it</h1><p>Commit b2, prepared 2 times.</p>"
    );

    // A push that changes the configuration: the guest continues, with another app and the same data.
    let other = app().replace("serving on", "serving again on");
    let other = evaluated(&preview.shop, &other).await.closure;
    let switch = other.as_path().join("bin/switch-to-configuration");
    preview.shell(&format!("{} switch", switch.display())).await;
    await_line(&preview.units, &preview.guest, "serving again on port 3000").await;
    assert!(preview.page().await.contains("prepared 2 times"));
    assert_eq!(
        preview.shell("readlink /run/current-system").await,
        other.as_str()
    );
}

#[tokio::test]
async fn failed_services_of_a_preview_are_reported() {
    let Some(preview) = Preview::boot("failed_services_of_a_preview_are_reported").await else {
        return;
    };
    // No server listens there.
    preview.tell("PREVIEW_REPO_URL='http://127.0.0.1:1/x.git'\n");
    let (status, _, stderr) = preview.run(&["systemctl", "start", "preview-setup"]).await;
    assert_eq!(status, 1, "{stderr}");
    assert!(stderr.contains("control process exited"), "{stderr}");
    let log = preview.shell("journalctl -u preview-setup").await;
    assert!(log.contains("refused"), "{log}");
    let (status, state, _) = preview
        .run(&["systemctl", "is-active", "preview-setup"])
        .await;
    assert_eq!((status, state.as_str()), (3, "failed\n"));
    let (status, ..) = preview
        .run(&["systemctl", "is-failed", "-q", "preview-setup"])
        .await;
    assert_eq!(status, 0);

    // The app restarts when it ends, and stays down when it is stopped.
    preview.tell("");
    preview
        .shell("systemctl reset-failed preview-setup && systemctl start preview-setup preview-app")
        .await;
    preview.page().await;
    let first = preview.shell("pidof httpd; killall -9 httpd").await;
    let again = preview
        .shell("until pidof httpd; do usleep 20000; done; systemctl show --value -P NRestarts preview-app")
        .await;
    assert!(
        again.ends_with("\n1") && !again.starts_with(&first),
        "{first} {again}"
    );
    assert_eq!(
        preview
            .shell(
                "systemctl stop preview-app; ! pidof httpd; systemctl is-active preview-app || :"
            )
            .await,
        "inactive"
    );
    let (status, _, stderr) = preview.run(&["systemctl", "start", "nothing"]).await;
    assert_eq!(status, 5, "{stderr}");
    let (status, ..) = preview
        .run(&["systemctl", "--no-block", "start", "preview-app"])
        .await;
    assert_eq!(status, 0);
    preview.page().await;
}
