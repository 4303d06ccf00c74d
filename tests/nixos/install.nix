# A disk as the installation leaves it: disko builds the image of one of our layouts, and a machine boots from it. The
# layout, the boot loader, the thin pool, and a daemon that keeps its guests where they belong.
{
  self,
  pkgs,
  nixpkgs,
  closure,
  prelude,
  ...
}:
let
  inherit
    (nixpkgs.lib.nixosSystem {
      modules = [
        self.inputs.disko.nixosModules.disko
        self.nixosModules.default
        ../../initial-install/configuration.nix
        (import ../../initial-install/one-disk.nix {
          device = "/dev/vda";
          rootSize = "12G";
        })
        (
          { modulesPath, ... }:
          {
            imports = [ (modulesPath + "/testing/test-instrumentation.nix") ];
            nixpkgs.hostPlatform = pkgs.stdenv.hostPlatform.system;
            disko.devices.disk.main.imageSize = "32G";
            services.innkeeper.enable = true;
            # The thin volume is larger than the image's disk, as thin volumes may be.
            services.innkeeper.storage.alarmAt = 95;
            environment.systemPackages = [
              pkgs.curl
              pkgs.jq
            ];
            system.extraDependencies = [ closure ];
          }
        )
      ];
    })
    config
    ;
in
{
  nodes = { };
  testScript = prelude + ''
    import shutil
    import tempfile

    disk = tempfile.mkdtemp() + "/main.raw"
    shutil.copyfile("${config.system.build.diskoImages}/main.raw", disk)
    inn = create_machine(
        start_command=f"${pkgs.qemu_test}/bin/qemu-kvm -m 4096 -smp 2 -drive file={disk},format=raw,if=virtio", name="inn"
    )
    inn.start()

    with subtest("it boots from the disk, and the daemon is there"):
        inn.wait_for_unit("multi-user.target")
        inn.wait_for_unit("innkeeper.service")

    with subtest("guests are on the thin volume"):
        inn.succeed("findmnt --noheadings --output SOURCE /var/lib/innkeeper | grep innkeeper")
        inn.succeed("lvs --noheadings --options pool_lv pool/innkeeper | grep thin")
        inn.succeed("systemctl start innkeeper-thin-pool.service")

    with subtest("an agent comes, and is back after a reboot"):
        create(inn, "one")
        inn.succeed(f"curl --fail http://{address(inn, 'one')}:80/")
        inn.shutdown()
        inn.start()
        inn.wait_for_unit("innkeeper.service")
        inn.wait_until_succeeds(f"curl --fail http://{address(inn, 'one')}:80/")
        require_healthy(inn, "one")
        inn.succeed("innkeeper doctor")
  '';
}
