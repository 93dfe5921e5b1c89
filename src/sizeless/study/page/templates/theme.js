"use strict";
// Before anything is painted: the theme that was chosen on this visit.
try {
  const kept = document.getElementById(sessionStorage.getItem("sizeless-theme"));
  if (kept) kept.checked = true;
} catch {
  // A browser may refuse to keep anything.
}
