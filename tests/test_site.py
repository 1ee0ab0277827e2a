"""The documentation's site: it builds, its links lead somewhere, and each page is readable on a phone and a desktop."""

from __future__ import annotations

import functools
import html
import http.server
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from mkdocs.exceptions import PluginError

ROOT = Path(__file__).parent.parent
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
WIDTHS = [400, 1400]
LEAST_TEXT = 200  # characters of a page that shows something
BROWSER_S = 120.0

# Runs in the browser: loads each page in a frame of each width, and sends back what is wider than the frame.
PROBE = """<!doctype html><title>probe</title><body style="margin:0"><script>
const pages = PAGES, widths = WIDTHS;
function scrolls(element) {  // whether something around it has a scroll bar of its own
  for (let box = element.parentElement; box && box.tagName !== "BODY"; box = box.parentElement) {
    const overflow = box.ownerDocument.defaultView.getComputedStyle(box).overflowX;
    if (overflow === "auto" || overflow === "scroll") return true;
  }
  return false;
}
function hidden(element) {
  const style = element.ownerDocument.defaultView.getComputedStyle(element);
  return style.visibility === "hidden" || !element.getClientRects().length;
}
async function measure(page, width) {
  const frame = document.createElement("iframe");
  frame.style.cssText = `border:0;width:${width}px;height:900px`;
  const loaded = new Promise(done => frame.onload = done);
  frame.src = page;
  document.body.append(frame);
  await loaded;
  const inner = frame.contentDocument, root = inner.documentElement, article = inner.querySelector("article");
  const wide = article ? [...article.querySelectorAll("*")].filter(
    e => e.getBoundingClientRect().right > width + 1 && !hidden(e) && !scrolls(e)) : [];
  const result = {
    page, width, viewport: root.clientWidth, scroll: root.scrollWidth,
    text: article ? article.innerText.length : 0,
    wide: wide.slice(0, 3).map(e => e.outerHTML.slice(0, 160)),
    broken: [...inner.images].filter(image => image.loading !== "lazy" && !image.naturalWidth).map(image => image.src),
  };
  frame.remove();
  return result;
}
(async () => {
  const results = [];
  for (const page of pages) for (const width of widths) results.push(await measure(page, width));
  await fetch("/__results", {method: "POST", body: JSON.stringify(results)});
})().catch(error => fetch("/__results", {method: "POST", body: JSON.stringify(String(error.stack))}));
</script>"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as strictly as CI does."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


class Page(HTMLParser):
    """The anchors of a page, what it links to, and what it loads."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.anchors.update(values[name] for name in ("id", "name") if name in values)
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        elif tag == "link" and values.get("rel") not in ("prev", "next", "canonical"):
            self.loads.append(values.get("href", ""))
        elif "src" in values:
            self.loads.append(values["src"])


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    found = {path: Page(path) for path in sorted(site.rglob("*.html")) if path.name != "404.html"}
    assert len(found) > 15
    return found


def test_the_map_of_folders_is_the_package() -> None:
    """The folders in docs/architecture.md, by their indentation, are those that there are."""
    text = re.findall(
        r"^```text\n(tvmpipe/\n.*?)^```", (ROOT / "docs" / "architecture.md").read_text(), re.DOTALL | re.MULTILINE
    )[0]
    above: list[str] = []
    named = set()
    for line in text.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        for word in line.split("  "):
            word = word.strip()
            if word.endswith("/") and " " not in word:
                above[depth:] = [word]
                named.add("".join(above))
            elif word.endswith(".py"):
                assert all((ROOT / "".join(above[:depth]) / one).is_file() for one in word.split()), word
    two = {path.parent.relative_to(ROOT) for path in ROOT.glob("tvmpipe/**/__init__.py")}
    there = {f"{folder}/" for folder in two if len(folder.parts) <= 3}
    deeper = {"tvmpipe/passes/kernels/", "tvmpipe/passes/placement/"}  # described on pages of their own
    left_out = {name for name in there - named if any(name.startswith(one) and name != one for one in deeper)}
    assert all((ROOT / name).is_dir() for name in named)
    named = {name for name in named if name.count("/") <= 3}
    assert named - {"tests/", "benchmarks/"} == there - left_out


def test_no_link_is_broken(site: Path, pages: dict[Path, Page]) -> None:
    broken = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            anchors = pages[target].anchors if target in pages else set()
            if not target.exists() or (parts.fragment and unquote(parts.fragment) not in {*anchors, "__codelineno"}):
                broken.append(f"{path.relative_to(site)}: {link}")
    assert broken == []


def test_nothing_is_loaded_from_elsewhere(site: Path, pages: dict[Path, Page]) -> None:
    loads = {load for page in pages.values() for load in page.loads if not load.startswith("data:")}
    assert [load for load in loads if urlsplit(load).netloc] == []
    styles = "".join(path.read_text() for path in site.rglob("*.css"))
    assert re.findall(r"url\(\s*[\"']?(?:https?:)?//[^)]*", styles) == []


def test_every_operator_of_the_standard_has_a_row(site: Path) -> None:
    text = re.sub(r"<[^>]+>", " ", (site / "operators.html").read_text())
    ways = "yes|by ONNX Runtime|as what it stands for|where it can be written out"
    words = dict(re.findall(rf"\n\s*(\w+)\s*\n\s*({ways})", text))
    assert len(words) > 190
    assert (words["Conv"], words["Softmax"], words["StringSplit"]) == ("yes", "yes", "by ONNX Runtime")
    assert words["RotaryEmbedding"] == "as what it stands for"


def test_results_are_those_of_the_files(site: Path) -> None:
    text = html.unescape(re.sub(r"<[^>]+>", "", (site / "kernels.html").read_text()))
    for line in (ROOT / "benchmarks" / "results" / "kernels.txt").read_text().splitlines():
        assert line.rstrip() in text


WIDE_PAGE = b"<!doctype html><article><div style='width:900px'>wide</div></article>"


def test_nothing_is_left_to_fill_in(site: Path) -> None:
    for path in site.rglob("*.html"):
        assert re.findall(r"<!-- (?:results|readme|operators|element types|targets|rewrites)\b", path.read_text()) == []


def test_what_a_page_asks_for_wrongly_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "hooks"))
    hook = importlib.import_module("fill_pages")
    assert "python -m benchmarks.roofline` prints them" in hook.on_page_markdown("<!-- results: roofline -->")
    for wrong in ("<!-- results: no_such_benchmark -->", "<!-- operator -->"):
        with pytest.raises(PluginError):
            hook.on_page_markdown(f"# Title\n\n{wrong}\n")


class _Server(http.server.ThreadingHTTPServer):
    """Serves the site and the probe, and takes the probe's results."""

    def __init__(self, site: Path, probe: str) -> None:
        super().__init__(("127.0.0.1", 0), functools.partial(_Handler, directory=str(site)))
        self.own = {"/__probe.html": probe.encode(), "/__wide.html": WIDE_PAGE}
        self.results: Any = None
        self.missing: list[str] = []
        self.done = threading.Event()


class _Handler(http.server.SimpleHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        if self.path not in self.server.own:
            return super().do_GET()
        page = self.server.own[self.path]
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(204)
        self.end_headers()
        self.server.results = json.loads(body)
        self.server.done.set()

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        self.server.missing.append(self.path)
        super().send_error(code, message, explain)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def browser(site: Path, pages: dict[Path, Page], tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Server]:
    """What headless Chromium measured of every page at every width."""
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    names = [*(path.relative_to(site).as_posix() for path in pages), "__wide.html"]
    probe = PROBE.replace("PAGES", json.dumps([f"/{name}" for name in names])).replace("WIDTHS", json.dumps(WIDTHS))
    server = _Server(site, probe)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
    command += ["--window-size=1500,1000", f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"]
    command += ["--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1", "--remote-debugging-port=0"]
    command += [f"http://127.0.0.1:{server.server_address[1]}/__probe.html"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        assert server.done.wait(BROWSER_S), "the browser sent nothing"
        yield server
    finally:
        process.terminate()
        process.wait(10)
        server.shutdown()
        server.server_close()


def too_wide(result: dict[str, Any]) -> bool:
    """Whether a reader would have to move the page sideways; what scrolls inside its own box is fine."""
    return bool(result["scroll"] > result["viewport"] or result["wide"])


def test_every_page_is_readable_at_every_width(browser: _Server, pages: dict[Path, Page]) -> None:
    assert isinstance(browser.results, list), browser.results
    results = [result for result in browser.results if result["page"] != "/__wide.html"]
    assert len(results) == len(pages) * len(WIDTHS)
    assert all(abs(result["viewport"] - result["width"]) <= 20 for result in results)  # but for a scroll bar
    assert [result for result in results if too_wide(result)] == []
    assert [result["page"] for result in results if result["broken"] or result["text"] < LEAST_TEXT] == []


def test_a_page_that_is_too_wide_is_noticed(browser: _Server) -> None:
    found = {result["width"]: too_wide(result) for result in browser.results if result["page"] == "/__wide.html"}
    assert found == {400: True, 1400: False}


def test_the_browser_found_every_file(browser: _Server) -> None:
    assert [path for path in browser.missing if path != "/favicon.ico"] == []
