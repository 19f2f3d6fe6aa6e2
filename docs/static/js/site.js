// Formulas, tables that can be sorted and have their numbers at the right, and wide things that can be scrolled with the keyboard.
renderMathInElement(document.body, {delimiters: [{left: '\\[', right: '\\]', display: true}, {left: '\\(', right: '\\)', display: false}]})

const NUMBER = /^[-+−]?[\d,.]+(e[-+]\d+)?( ([×±]|to)\s[\d,.]+)*( %)?$/
const number = text => parseFloat(text.replaceAll(',', ''))
Tablesort.extend('number', text => !isNaN(number(text)), (a, b) => number(b) - number(a))
for (const table of document.querySelectorAll('article table:not(.highlighttable)')) {
  for (const cell of table.querySelectorAll('td')) cell.classList.toggle('long', cell.textContent.length > 16)
  const rows = [...table.rows].filter(o => o.cells.length == table.tHead?.rows[0].cells.length)
  for (const i of table.tHead ? [...table.tHead.rows[0].cells].keys() : []) {   // numbers to the right
    const texts = rows.map(o => o.cells[i]).filter(o => o.tagName == 'TD').map(o => o.textContent.trim()).filter(o => !['', '–'].includes(o))
    if (texts.length && texts.every(o => o == '…' || NUMBER.test(o))) {
      for (const o of rows) o.cells[i].classList.add('number')
      for (const o of rows) for (const part of o.cells[i].childNodes) if (part.data) part.data = part.data.replace(' ± ', ' ±\u00a0')
    }
  }
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
