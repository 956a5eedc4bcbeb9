// LoRA Garage in Pinokio, which brings uv. This folder is the launcher: Pinokio's description (AGENTS.md of its repository proto) has launchers in
// the root or in a folder `pinokio`. All its steps are launch.py's own, so that torch, repair and uninstall are the same as anywhere. Never run:
// there is no Pinokio where it was written; menu, steps and the line that gives the address are checked by tests/process/test_release.py.
module.exports = {
  version: "3.7",
  title: "LoRA Garage",
  description: "Fine-tune a language model with LoRA or QLoRA on a gaming PC.",
  menu: async (kernel, info) => {
    if (!info.exists("../.venv")) return [{ default: true, icon: "fa-solid fa-download", text: "Install", href: "install.json" }]
    const running = info.running("start.json")
    const url = running && info.local("start.json").url
    return [
      ...(url ? [{ default: true, icon: "fa-solid fa-rocket", text: "Open", href: url }] : []),
      { default: !url, icon: "fa-solid fa-power-off", text: running ? "Terminal" : "Start", href: "start.json" },
      { icon: "fa-solid fa-wrench", text: "Repair", href: "repair.json" },
      { icon: "fa-regular fa-circle-xmark", text: "Uninstall (runs and models stay)", href: "uninstall.json" },
    ]
  },
}
