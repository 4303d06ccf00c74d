# The scenarios in virtual machines: each file here is a test with the file's name, and so is each scenario of tests/e2e,
# which tests/vm runs on Debian (`e2e-` and its name).
{
  self,
  pkgs,
  lib,
  # Our programs as developers build them: with points at which they can be killed.
  debug,
  # The program that stands in for GitHub.
  fakeGithub,
  # The demo of `nix run`.
  demo,
}:
let
  # The names of the files in a folder that end in `suffix`, without it.
  names =
    suffix: folder:
    map (lib.removeSuffix suffix) (
      builtins.attrNames (
        lib.filterAttrs (name: type: type == "regular" && lib.hasSuffix suffix name) (
          builtins.readDir folder
        )
      )
    );

  # A guest that answers on port 80, built beforehand: the machines have no network to build with.
  guest = self.lib.mkGuest {
    inherit (pkgs.stdenv.hostPlatform) system;
    modules = [
      ./shared/guest.nix
      {
        environment.systemPackages = [
          pkgs.curl
          pkgs.dnsutils
        ];
      }
    ];
  };
  closure = guest.config.system.build.toplevel;

  # A host with Innkeeper, and the guest's closure in its store.
  host = {
    environment.systemPackages = [
      pkgs.curl
      pkgs.jq
    ];
    imports = [ self.nixosModules.default ];
    services.innkeeper.enable = true;
    system.extraDependencies = [ closure ];
    virtualisation = {
      cores = 2;
      memorySize = 2048;
      writableStore = true;
    };
  };

  # A function of test scripts: a guest with systemd has no failed unit.
  health = ''
    def require_healthy(machine, name, command="agent"):
        state = machine.execute(f"{command} exec {name} -- systemctl is-system-running --wait")[1].strip()
        failed = machine.execute(f"{command} exec {name} -- systemctl --failed --no-legend --plain")[1].strip()
        assert (state, failed) == ("running", ""), f"{name} is {state}; failed units: {failed}"


  '';

  # The head of test scripts with the host's guest.
  prelude = health + ''
    CLOSURE = "${closure}"


    def create(machine, name):
        machine.succeed(f"agent create {name} --closure {CLOSURE} --wait --wait-port 80")
        require_healthy(machine, name)


    def address(machine, name):
        return machine.succeed(
            f"agent list --json | jq --raw-output '.[] | select(.name == \"{name}\") | .guest_address'"
        ).strip()

  '';

  test =
    name: module:
    pkgs.testers.runNixOSTest {
      name = "innkeeper-${name}";
      globalTimeout = 1800;
      imports = [ module ];
    };
  own = lib.genAttrs (lib.remove "default" (names ".nix" ./.)) (
    name:
    import (./. + "/${name}.nix") {
      inherit
        self
        host
        health
        prelude
        pkgs
        closure
        demo
        fakeGithub
        ;
      inherit (self.inputs) nixpkgs;
    }
  );
  # Variants of the guest with Debian's systemd cannot be built here.
  suits =
    name: !(lib.hasInfix "\nNeeds: debian-guests" (builtins.readFile (../e2e + "/${name}.py")));
  shared = lib.listToAttrs (
    map (name: lib.nameValuePair "e2e-${name}" (e2e (../e2e + "/${name}.py"))) (
      # `containers` copies Debian's podman into its guest.
      builtins.filter suits (lib.subtractLists [ "common" "containers" ] (names ".py" ../e2e))
    )
  );
  e2e = import ./shared/e2e.nix {
    inherit
      pkgs
      lib
      host
      closure
      debug
      fakeGithub
      ;
  };
in
lib.mapAttrs test (own // shared)
