# The closure that the benchmark boots: one static program as `init`.
#
# `tests/bench/run` stages this folder together with `bin/busybox`, `program/init` and `system`.
{
  description = "The smallest guest that reports its start time";

  outputs =
    _:
    let
      system = builtins.replaceStrings [ "\n" ] [ "" ] (builtins.readFile ./system);
    in
    {
      packages.${system}.default = derivation {
        name = "bench-guest";
        inherit system;
        builder = "${./bin}/busybox";
        args = [
          "sh"
          "-euc"
          "${./bin}/busybox mkdir $out && ${./bin}/busybox cp ${./program}/init $out/init"
        ];
      };
    };
}
