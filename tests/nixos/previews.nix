# From a delivery of GitHub to a page, and back to nothing: GitHub is a stand-in on a machine of its own, with TLS in front
# and an address that is not private, so that guests reach it as they reach the real one.
{
  host,
  health,
  pkgs,
  nixpkgs,
  fakeGithub,
  ...
}:
let
  inherit (pkgs) lib;
  domain = "preview.example.org";
  secret = "secret of a test";
  token = "token of a test";
  githubAddress = "198.51.100.1";
  innAddress = "198.51.100.2";

  # An authority of the test's own, and certificates by it for both machines.
  certificates =
    pkgs.runCommand "innkeeper-test-certificates" { nativeBuildInputs = [ pkgs.openssl ]; }
      ''
        mkdir $out && cd $out
        new="openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
        $new -x509 -days 36500 -subj /CN=authority -keyout authority.key -out authority.pem
        certificate() {
          $new -subj "/CN=$1" -addext "subjectAltName=$2" -keyout "$1.key" -out "$1.csr"
          openssl x509 -req -days 36500 -copy_extensions copyall -CA authority.pem -CAkey authority.key -in "$1.csr" -out "$1.pem"
        }
        certificate github DNS:github.example.org
        certificate inn 'DNS:${domain},DNS:*.${domain}'
      '';

  at = address: {
    networking.interfaces.eth1.ipv4.addresses = [
      {
        inherit address;
        prefixLength = 24;
      }
    ];
    networking.hosts = {
      ${githubAddress} = [ "github.example.org" ];
      ${innAddress} = [ "webhook.${domain}" ];
    };
    security.pki.certificateFiles = [ "${certificates}/authority.pem" ];
  };

  configuration = ./shared/preview-config.nix;

  closure = import ./shared/composed.nix {
    inherit nixpkgs configuration;
    inherit (pkgs.stdenv.hostPlatform) system;
  };
in
{
  nodes.inn = {
    imports = [
      host
      (at innAddress)
    ];
    # In a virtual machine, secrets that everybody can read.
    environment.etc = {
      "secrets/preview.env".text = "GITHUB_TOKEN=${token}";
      "secrets/webhook".text = secret;
      "secrets/inn.pem".source = "${certificates}/inn.pem";
      "secrets/inn.key".source = "${certificates}/inn.key";
    };
    services.innkeeper = {
      previews = {
        enable = true;
        inherit domain;
        environmentFile = "/etc/secrets/preview.env";
      };
      caddy.certificate.files = {
        certificate = "/etc/secrets/inn.pem";
        key = "/etc/secrets/inn.key";
      };
      webhook = {
        secretFile = "/etc/secrets/webhook";
        allowedRepos = [ "octo/web" ];
      };
      settings.github = {
        api_url = "https://github.example.org";
        clone_url = "http://${githubAddress}";
      };
    };
    system.extraDependencies = [ closure ];
    # NixOS is evaluated in there.
    virtualisation.memorySize = lib.mkForce 6144;
  };

  nodes.github = {
    imports = [ (at githubAddress) ];
    networking.firewall.allowedTCPPorts = [
      80
      443
    ];
    environment.systemPackages = [
      pkgs.curl
      pkgs.git
      pkgs.jq
    ];
    programs.git = {
      enable = true;
      config.safe.directory = "*";
    };
    systemd.services.fake-github = {
      wantedBy = [ "multi-user.target" ];
      path = [ pkgs.git ];
      # It listens on the loopback interface only.
      serviceConfig.ExecStart = "${fakeGithub}/bin/innkeeper-fake-github 127.0.0.1:8099 ${pkgs.writeText "token" token}";
    };
    services.caddy = {
      enable = true;
      extraConfig = ''
        https://github.example.org {
          tls ${certificates}/github.pem /etc/github.key
          reverse_proxy 127.0.0.1:8099
        }
        # The repository that guests clone, as Git's own files.
        http://${githubAddress} {
          root * /srv/git
          file_server
        }
        # The fake delivers without TLS.
        http://127.0.0.1:8098 {
          reverse_proxy https://webhook.${domain} {
            header_up Host webhook.${domain}
          }
        }
      '';
    };
    environment.etc."github.key" = {
      source = "${certificates}/github.key";
      mode = "0444";
    };
  };

  testScript = health + ''
    import json
    from typing import Any

    FAKE = "http://127.0.0.1:8099/_fake"


    def tell(method: str, path: str, body: Any = None) -> str:
        data = f"--json '{json.dumps(body)}'" if body is not None else ""
        return github.succeed(f"curl --fail --silent --show-error --request {method} {data} {FAKE}{path}")


    def commit(text: str) -> None:
        github.succeed(
            f"cd /root/web && echo '{text}' > index.html && git add --all && git commit --quiet --message '{text}'",
            "cd /root/web && git push --quiet --force origin HEAD:change && git -C /srv/git/octo/web.git update-server-info",
        )


    def pull(event: str, closed: bool = False) -> None:
        tell("PUT", "/repos/octo/web/pulls/7", {"head_branch": "change", "title": "A change", "closed": closed})
        attempt = json.loads(tell("POST", f"/repos/octo/web/pulls/7/events/{event}"))
        assert attempt["status_code"] == 202, attempt


    def page() -> str:
        return inn.succeed("curl --fail --silent --resolve web-7.${domain}:443:${innAddress} https://web-7.${domain}/")


    start_all()
    inn.wait_for_unit("innkeeper.service")
    inn.wait_for_unit("innkeeper-webhook.service")
    inn.wait_for_unit("caddy.service")
    inn.wait_for_unit("postgresql.service")
    github.wait_for_open_port(8099)
    github.wait_for_open_port(443)

    github.succeed(
        "git init --quiet --bare --initial-branch main /srv/git/octo/web.git",
        "git clone --quiet /srv/git/octo/web.git /root/web",
        "cd /root/web && git config user.name test && git config user.email test@example.org",
        "cp ${configuration} /root/web/preview-config.nix",
        "cd /root/web && git add --all && git commit --quiet --message first && git push --quiet origin HEAD:main",
    )
    tell("PUT", "/repos/octo/web", {"git": "/srv/git/octo/web.git"})
    tell("PUT", "/hook", {"url": "http://127.0.0.1:8098/webhook/github", "secret": "${secret}"})

    with subtest("the host is complete"):
        inn.succeed("innkeeper doctor")

    with subtest("a pull request becomes a page, with a database"):
        commit("One")
        pull("opened")
        inn.wait_until_succeeds("preview list --json | jq --exit-status '.[0].state == \"live\"'", timeout=600)
        assert "One" in page()
        require_healthy(inn, "web-7", "preview")
        inn.succeed("sudo -u postgres psql --no-align --tuples-only preview_web_7 --command 'select count(*) from visits'")

    with subtest("GitHub is told"):
        assert "web-7.${domain}" in json.dumps(json.loads(tell("GET", "/repos/octo/web"))["comments"])

    with subtest("a push becomes another page"):
        commit("Two")
        pull("synchronize")
        inn.wait_until_succeeds(
            "curl --fail --silent --resolve web-7.${domain}:443:${innAddress} https://web-7.${domain}/ | grep Two", timeout=600
        )
        require_healthy(inn, "web-7", "preview")

    with subtest("an unsigned delivery is rejected"):
        post = "curl --silent --output /dev/null --write-out '%{http_code}' --data '{}' https://webhook.${domain}/webhook/github"
        assert github.succeed(post) == "401"

    with subtest("GitHub's token is the daemon's alone"):
        inn.fail("preview exec web-7 -- grep -r '${token}' /etc /run /home")

    with subtest("closed, nothing of it is left"):
        pull("closed", closed=True)
        inn.wait_until_succeeds("preview list --json | jq --exit-status '. == []'", timeout=300)
        databases = "sudo -u postgres psql --no-align --tuples-only --command \"select datname from pg_database\""
        assert "preview_" not in inn.succeed(databases)
        inn.fail("test -e /etc/caddy/previews/web-7.caddy")
        inn.succeed("innkeeper doctor")
  '';
}
