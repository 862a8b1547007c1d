// Two things that HTML alone cannot do within Airflow's page; without this script all else works.
"use strict";

// Airflow's own switch between light and dark, which is a class of its page.
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
      // Shown by a page of another origin: the browser's preference holds.
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

// Airflow 3.1 and 3.2 frame this page so that it may not download; Airflow's page itself may.
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
    // Of another origin: the link does what links do.
  }
});
