# Options as a page of Markdown. Our own, because nixosOptionsDoc has to be built, and the check of the page must also
# run where only evaluation is possible.
{ lib }:
let
  inherit (lib) concatStringsSep filter optional;

  # The path of a file of this repository, without the folder that the repository is in.
  relative = file: lib.removePrefix "${toString ../.}/" (toString file);

  # {option}`x` and {file}`x` are roles of NixOS' manual; a plain page has code spans.
  plain =
    text:
    lib.trim (
      builtins.replaceStrings
        [
          "{option}"
          "{file}"
          "{manpage}"
        ]
        [
          ""
          ""
          ""
        ]
        text
    );

  shown =
    value:
    if value._type or null == "literalExpression" then
      value.text
    else
      lib.generators.toPretty { multiline = false; } value;
  line = title: value: "- ${title}: `` ${shown value} ``";

  # With links to the files that declare it.
  declared =
    option:
    "- declared in ${
      concatStringsSep ", " (
        map (file: "[${relative file}](../${relative file})") (lib.unique option.declarations)
      )
    }";

  entry =
    heading: option:
    let
      lines = [
        "- type: ${option.type}"
      ]
      ++ optional (option ? default) (line "default" option.default)
      ++ optional (option ? example) (line "example" option.example)
      ++ [ (declared option) ];
    in
    ''
      ${heading} ${option.name}

      ${plain option.description}

      ${concatStringsSep "\n" lines}
    '';
  visible =
    options:
    filter (option: option.visible && !option.internal && !lib.hasInfix "_module" option.name) (
      lib.optionAttrSetToDocList options
    );
in
{
  inherit relative;

  page =
    {
      options,
      # Options of guests, `preview` and `guest`.
      guestOptions,
    }:
    let
      # The options of `apps.<name>` are those of `app`.
      ofGuests = filter (option: !lib.hasInfix ".apps.<name>." option.name) (
        visible guestOptions.preview
      );
    in
    ''
      # Options of the NixOS modules

      Written by `nix build .#docs` from `modules/`; a check compares. [configuration.md](configuration.md) explains the daemon's own
      settings, [install.md](install.md) the installation of a host.

      ${concatStringsSep "\n" (map (entry "##") (visible options))}
      ## Options of preview-config.nix

      A repository's file can use these. The guide: [previews.md](previews.md).

      ${concatStringsSep "\n" (map (entry "###") ofGuests)}
      ## Options of agents' guests

      For guests made with `nixosModules.guest-agent`: [guests.md](guests.md).

      ${concatStringsSep "\n" (map (entry "###") (visible guestOptions.guest))}'';
}
