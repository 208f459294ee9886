// A formula wider than the page scrolls inside its box. Only a box that takes the focus can be
// scrolled with the keyboard; MathJax's do not.
(function () {
  const mark = () => {
    for (const formula of document.querySelectorAll('mjx-container[display="true"]')) {
      if (formula.scrollWidth > formula.clientWidth) formula.tabIndex = 0;
      else formula.removeAttribute("tabindex");
    }
  };
  window.addEventListener("load", () => window.MathJax?.startup?.promise.then(mark));
  window.addEventListener("resize", mark);
})();

// The theme's buttons that open a part of the contents show an arrow and have no name.
document.addEventListener("DOMContentLoaded", () => {
  for (const button of document.querySelectorAll(".toctree-l1 > details > summary")) {
    const part = button.closest("li").querySelector("a");
    button.setAttribute("aria-label", `Pages of: ${part.textContent.trim()}`);
  }
});

// An interval of a table stays on one line: [0.84, 0.94], (0.84–0.94).
document.addEventListener("DOMContentLoaded", () => {
  for (const cell of document.querySelectorAll(".cell_output td")) {
    const walker = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
      const text = walker.currentNode;
      text.data = text.data.replace(/\[(\S+), (\S+)\]/g, "[$1,\u00a0$2]");
      text.data = text.data.replace(/\((\S+)–(\S+)\)/g, "($1\u2060–\u2060$2)");
    }
  }
});
