# Tests of modules/lib.nix: an attribute for each promise that is broken, so nothing at all when all is well.
let
  innkeeperLib = import ../../modules/lib.nix;
  cases = {
    "an address is a number" = innkeeperLib.address "10.100.0.2" == 174325762;
    "the last address is one" = innkeeperLib.address "255.255.255.255" == 4294967295;
    "five parts are no address" = innkeeperLib.address "1.2.3.4.5" == null;
    "a part above 255 is no address" = innkeeperLib.address "256.1.1.1" == null;
    "a part with a leading zero is no address" = innkeeperLib.address "10.0.0.01" == null;
    "an empty text is no address" = innkeeperLib.address "" == null;
    "IPv6 is no IPv4 address" = innkeeperLib.address "2001:db8::1" == null;
    "a network has a first and a last address" =
      let
        network = innkeeperLib.network "10.100.0.0/16";
      in
      network.first == innkeeperLib.address "10.100.0.0"
      && network.last == innkeeperLib.address "10.100.255.255";
    "everything is a network" = (innkeeperLib.network "0.0.0.0/0").last == 4294967295;
    "one address is a network" = (innkeeperLib.network "10.0.0.1/32").prefix == 32;
    "a host part that is not zero is refused" = innkeeperLib.network "10.100.0.1/16" == null;
    "a network without a length is refused" = innkeeperLib.network "10.100.0.0" == null;
    "a length above 32 is refused" = innkeeperLib.network "10.0.0.0/33" == null;
    "a network overlaps with a part of itself" = innkeeperLib.overlap "10.0.0.0/8" "10.100.0.0/16";
    "neighbors do not overlap" = !innkeeperLib.overlap "10.100.0.0/16" "10.101.0.0/16";
    "an address lies in its network" = innkeeperLib.inside "10.100.7.1" "10.100.0.0/16";
    "an address lies in no other network" = !innkeeperLib.inside "10.101.7.1" "10.100.0.0/16";
    "15 bytes are an interface's name" = innkeeperLib.isInterfaceName "abcdefghijklmno";
    "16 bytes are none" = !innkeeperLib.isInterfaceName "abcdefghijklmnop";
    "a slash is in none" = !innkeeperLib.isInterfaceName "eth/0";
    "an empty name is none" = !innkeeperLib.isInterfaceName "";
    "a domain has a dot" =
      innkeeperLib.isDomain "preview.example.org" && !innkeeperLib.isDomain "localhost";
    "a domain is in lower case" = !innkeeperLib.isDomain "Preview.example.org";
    "a wildcard is no domain" = !innkeeperLib.isDomain "*.example.org";
    "a label does not begin with a hyphen" = !innkeeperLib.isDomain "-a.example.org";
    "a path in the store is found" = innkeeperLib.inStore "${builtins.storeDir}/abc-secret";
    "a path outside is not" = !innkeeperLib.inStore "/var/secrets/key";
  };
in
builtins.filter (promise: !cases.${promise}) (builtins.attrNames cases)
