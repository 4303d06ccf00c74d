# Constants and functions that several modules share. Pure Nix without nixpkgs, so that tests/nix/run can test it anywhere.
let
  inherit (builtins)
    all
    elemAt
    filter
    foldl'
    fromJSON
    genList
    isString
    length
    match
    split
    ;

  # Two to the power of an exponent: the size of a network whose prefix leaves that many bits.
  power = exponent: foldl' (product: _: product * 2) 1 (genList (i: i) exponent);

  parts = separator: text: filter isString (split separator text);

  number = text: if match "0|[1-9][0-9]{0,2}" text == null then null else fromJSON text;
in
rec {
  # The group (ip-link(8)) of the guests' interfaces on the host: INTERFACE_GROUP in
  # crates/innkeeper-host/src/network/mod.rs. A name pattern such as `ve-+` would match other containers too.
  interfaceGroup = 26987;

  # The names of the host's ends of the guests' interfaces.
  interfacePattern = "ve-*";

  # An IPv4 address as a number, or null.
  address =
    text:
    let
      numbers = map number (parts "\\." text);
      good = length numbers == 4 && all (n: n != null && n <= 255) numbers;
    in
    if good then foldl' (sum: n: sum * 256 + n) 0 numbers else null;

  # `address/length` as its first and last address, or null. The host's part must be zero.
  network =
    text:
    let
      halves = parts "/" text;
      first = address (elemAt halves 0);
      prefix = number (elemAt halves 1);
      size = power (32 - prefix);
      good =
        length halves == 2
        && first != null
        && prefix != null
        && prefix <= 32
        && (first / size) * size == first;
    in
    if !good then
      null
    else
      {
        inherit first prefix;
        last = first + size - 1;
      };

  # Reports whether two networks have an address in common: false for a text that is not a network.
  overlap =
    a: b:
    let
      x = network a;
      y = network b;
    in
    x != null && y != null && x.first <= y.last && y.first <= x.last;

  # Reports whether an address lies in a network.
  inside = text: cidr: overlap "${text}/32" cidr;

  # Networks that guests may not reach; see REFUSED in crates/innkeeper-host/src/firewall/ruleset.rs.
  refused = [
    "10.0.0.0/8"
    "100.64.0.0/10"
    "127.0.0.0/8"
    "169.254.0.0/16"
    "172.16.0.0/12"
    "192.168.0.0/16"
    "224.0.0.0/4"
    "240.0.0.0/4"
  ];

  # Reports whether a path is in the Nix store, which every user can read, guests included.
  inStore =
    path:
    builtins.substring 0 (builtins.stringLength builtins.storeDir) "${toString path}"
    == builtins.storeDir;

  # The kernel's limit for the name of an interface (IFNAMSIZ without the final zero).
  isInterfaceName = text: builtins.stringLength text <= 15 && match "[^/[:space:]:]+" text != null;

  # A host name with at least one dot, in lower case, as DNS and Caddy's configuration require.
  isDomain =
    text:
    builtins.stringLength text <= 253
    && length (parts "\\." text) >= 2
    && all (label: match "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?" label != null) (parts "\\." text);
}
