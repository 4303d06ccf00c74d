# `nix run INNKEEPER#demo` on a NixOS that has nothing of Innkeeper, and no network: everything that it needs comes with it.
{ demo, ... }:
{
  nodes.machine = {
    environment.systemPackages = [ demo ];
    nix.settings.substituters = [ ];
    virtualisation = {
      cores = 2;
      # NixOS is evaluated in there.
      memorySize = 6144;
      writableStore = true;
    };
  };
  testScript = ''
    machine.wait_for_unit("multi-user.target")

    with subtest("without root, it names the remedy"):
        refused = machine.fail("runuser -u nobody -- innkeeper-demo 2>&1")
        assert "sudo " in refused, refused

    with subtest("agents and a preview come and go, and nothing is left"):
        print(machine.succeed("innkeeper-demo 2>&1", timeout=1500))
        machine.fail("ls -d /tmp/innkeeper-demo.*")
  '';
}
