// Tabs: one panel is shown; arrow keys, Home and End go from tab to tab.

export function setUpTabs(list) {
  const tabs = [...list.querySelectorAll('[role=tab]')];
  const show = chosen => {
    for (const tab of tabs) {
      tab.setAttribute('aria-selected', String(tab === chosen));
      tab.tabIndex = tab === chosen ? 0 : -1;
      document.getElementById(tab.getAttribute('aria-controls')).hidden = tab !== chosen;
    }
  };
  for (const tab of tabs) tab.addEventListener('click', () => show(tab));
  list.addEventListener('keydown', event => {
    const now = tabs.indexOf(event.target);
    const last = tabs.length - 1;
    const next = { ArrowRight: now < last ? now + 1 : 0, ArrowLeft: now > 0 ? now - 1 : last, Home: 0, End: last }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    show(tabs[next]);
    tabs[next].focus();
  });
}
