# Made by `cargo xtask dist` from deploy/homebrew/pgentra.rb.
class Pgentra < Formula
  desc "PostgreSQL without passwords, on Azure identities"
  homepage "@BASE_URL@"
  version "@VERSION@"
  license any_of: ["Apache-2.0", "MIT"]

  depends_on :linux
@SYSTEMS@
  def install
    bin.install "pgentra"
    man1.install Dir["man/*.1"]
    bash_completion.install "completions/pgentra.bash" => "pgentra"
    zsh_completion.install "completions/_pgentra"
    fish_completion.install "completions/pgentra.fish"
  end

  test do
    assert_match version.to_s, shell_output("#{bin}/pgentra --version")
  end
end
