// Two things that HTML cannot do inside Airflow's page. Everything else works without this script.
"use strict";

// Follow Airflow's switch between light and dark, a class of its page.
(() => {
  const here = document.documentElement;
  const follow = () => {
    try {
      const names = window.parent.document.documentElement.classList;
      const theme = names.contains("dark") ? "dark" : names.contains("light") ? "light" : "";
      const kept = theme || localStorage.getItem("theme");
      if (kept === "dark" || kept === "light") here.dataset.theme = kept;
      else delete here.dataset.theme;
    } catch {
      // Framed by a page of another origin: the browser's preference decides.
    }
  };
  follow();
  try {
    new MutationObserver(follow).observe(window.parent.document.documentElement, {
      attributes: true,
      attributeFilter: ["class"],
    });
  } catch {
    // As above.
  }
})();

// In Airflow 3.1 and 3.2 the frame may not download, but Airflow's own page may.
document.addEventListener("click", (event) => {
  const link = event.target instanceof Element && event.target.closest("a[data-download]");
  if (!link || window.parent === window) return;
  try {
    const page = window.parent.document;
    const copy = page.createElement("a");
    copy.href = link.href;
    copy.download = "";
    page.body.append(copy);
    copy.click();
    copy.remove();
    event.preventDefault();
  } catch {
    // Framed by a page of another origin: follow the link as usual.
  }
});
