const tip = document.getElementById("tip");
function show(token) {
  if ((tip.hidden = !token)) return;
  tip.textContent = token.dataset.tip;
  const box = token.getBoundingClientRect(), room = document.documentElement.clientWidth - tip.offsetWidth - 8;
  const y = box.bottom + tip.offsetHeight + 12 > innerHeight ? box.top - tip.offsetHeight - 6 : box.bottom + 6;
  Object.assign(tip.style, { left: `${Math.max(8, Math.min(box.left, room)) + scrollX}px`, top: `${Math.max(0, y + scrollY)}px` });
}
for (const name of ["pointermove", "pointerdown", "focusin"]) addEventListener(name, (event) => show(event.target.closest("[data-tip]")));
addEventListener("keydown", ({ key, target }) => (key === "Escape" ? show() : target.dataset?.tip && { ArrowRight: target.nextElementSibling, ArrowLeft: target.previousElementSibling }[key]?.focus()));
