# Sourced. Packages of another Debian release or machine, from the mirror that this system's own apt uses, without
# touching the system's package lists:
#   private_apt FOLDER SUITE ARCH   sets the array `apt`: options for apt-get and apt-cache; lists are kept in FOLDER
private_apt() {
  local state=$1 suite=$2 arch=$3 uri
  mkdir -p "$state/lists/partial" "$state/cache/archives/partial"; state=$(cd "$state" && pwd)
  # Label and codename come with the lists: before the first update there is no answer
  mirror() { apt-get indextargets --format '$(REPO_URI)' 'Label: Debian' 'Created-By: Packages' 2>/dev/null | head -1; }
  uri=$(mirror) || true
  [ -n "$uri" ] || { apt-get -o DPkg::Lock::Timeout=300 -qq update >&2; uri=$(mirror) || true; }
  [ -n "$uri" ] || { echo "no Debian mirror among this system's package sources" >&2; return 1; }
  echo "deb [arch=$arch signed-by=$(ls /usr/share/keyrings/debian-archive-keyring.* | head -1)] $uri $suite main" >"$state/sources.list"
  : >"$state/status" # nothing is installed there: what a package depends on comes with it
  apt=(-o "Dir::Etc::SourceList=$state/sources.list" -o Dir::Etc::SourceParts=/dev/null -o "Dir::State::Lists=$state/lists"
    -o "Dir::State::status=$state/status" -o "Dir::Cache=$state/cache" -o "APT::Architecture=$arch" -o "APT::Architectures=$arch")
}
