// Copyright (c) 2026, the dbfleet.maintenance contributors
// GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later
// Buttons that copy a statement. Without it, one click on the statement selects the whole of it.
"use strict";
if (navigator.clipboard) {
  for (const button of document.querySelectorAll(".fix button")) {
    button.hidden = false;
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(button.parentElement.querySelector("code").textContent);
      button.textContent = "copied";
      setTimeout(() => { button.textContent = "copy"; }, 1500);
    });
  }
}
