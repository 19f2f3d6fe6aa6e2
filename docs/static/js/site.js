// Formulas, tables that can be sorted, and wide things that can be scrolled with the keyboard.
renderMathInElement(document.body, {delimiters: [{left: '\\[', right: '\\]', display: true}, {left: '\\(', right: '\\)', display: false}]})

const number = text => parseFloat(text.replaceAll(',', ''))
Tablesort.extend('number', text => !isNaN(number(text)), (a, b) => number(b) - number(a))
for (const table of document.querySelectorAll('article table:not(.highlighttable)')) {
  if (table.tHead?.rows.length == 1 && table.tBodies[0]?.rows.length > 1) new Tablesort(table)
}

for (const a of document.querySelectorAll('a.glightbox')) a.dataset.alt = a.querySelector('img').alt   // for the enlarged image

document.querySelector('.md-search')?.setAttribute('aria-label', 'Search')   // a dialog that the theme gives no name

// The theme wraps tables after this script has run.
addEventListener('load', () => {
  for (const box of document.querySelectorAll('.md-typeset__table, .md-typeset__scrollwrap, div.arithmatex, .output code')) {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0
  }
})
