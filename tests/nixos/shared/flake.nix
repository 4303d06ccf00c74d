# The guests that tests/e2e boots, in the virtual machines of tests/nixos: the small one of tests/fixtures as it is, and a
# NixOS guest in the place of the one with Debian's systemd.
#
# The NixOS guest was built together with the host, because the machine has no network to build it with. Its path is in
# the file `system-closure`; what is built here is a copy of the closure's top, which refers to all the rest.
{
  outputs =
    _:
    let
      line = file: builtins.replaceStrings [ "\n" ] [ "" ] (builtins.readFile file);
      fixture = (import ./fixture/flake.nix).outputs { };
      system = line ./fixture/system;
      path = line ./system-closure;
      closure = builtins.appendContext path { ${path}.path = true; };
      busybox = "${./fixture/bin}/busybox";
    in
    fixture
    // {
      packages.${system} = fixture.packages.${system} // {
        systemd = derivation {
          name = "nixos-guest";
          inherit system;
          builder = busybox;
          args = [
            "sh"
            "-euc"
            "${busybox} cp -a ${closure}/. $out"
          ];
        };
      };
    };
}
