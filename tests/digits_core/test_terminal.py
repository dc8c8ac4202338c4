import io

from rich.live import Live
from rich.table import Table
from rich.text import Text

from digits_core.command import say
from digits_core.credentials import holds_credentials, scrub
from digits_core.terminal import PlainConsole, open_console

NASTY = "a\x1b[31m\x9b\u202e\r\nb[red]c[/blue]:smile:"
SHOWN = r"a\x1b[31m\x9b\u202e\r\nb[red]c[/blue]:smile:"


def test_a_string_is_one_line_and_nothing_in_it_is_obeyed(capsys):
    out = io.StringIO()
    console = open_console(out)
    console.print(NASTY)
    console.print(NASTY, style="bold", soft_wrap=True)
    console.print(Text(NASTY.replace("\n", "")))  # rich itself removes some codes from a Text
    assert out.getvalue().splitlines() == [SHOWN, SHOWN, SHOWN.replace(r"\n", "").replace(r"\r", "")]
    say(NASTY)
    assert capsys.readouterr().out == f"{SHOWN}\n"


def test_cells_and_headers_of_a_table_are_shown_as_they_are():
    out = io.StringIO()
    table = Table()
    table.add_column(NASTY)
    table.add_row(NASTY)
    open_console(out).print(table)
    assert out.getvalue().count(SHOWN) == 2
    assert out.getvalue().replace("\n", "").isprintable()


def test_a_live_view_keeps_the_control_codes_that_it_needs():
    out = io.StringIO()
    console = PlainConsole(file=out, force_terminal=True, width=80, legacy_windows=False)
    with Live(console=console, transient=True, auto_refresh=False) as live:
        live.update(Text("bar", style="red"), refresh=True)
        live.update(NASTY, refresh=True)
    text = out.getvalue()
    assert "\x1b[?25l" in text  # the cursor is hidden
    assert SHOWN in text
    assert "\x1b]" not in text
    assert "\x9b" not in text


def test_passwords_in_addresses_are_left_out_of_what_is_printed(capsys):
    say("cannot reach http://me:pass@host:5000/x?token=pass&page=2 or s3://AKIA:pa/ss@bucket")
    assert capsys.readouterr().out == "cannot reach http://***@host:5000/x?token=***&page=2 or s3://***@bucket\n"


def test_an_address_that_only_looks_like_one_with_a_password_is_left_alone():
    for address in (
        "s3://bucket/a@b",
        "http://host:5000/a@b",
        "http://[::1]:5000/x@y",
        "abfs://container@account.dfs.core.windows.net/x",
        "hdfs://me@host/x",
        "file:///home/a:b@c",
        "s3://bucket/folder?endpoint_override=HOST:9000&scheme=http&region=eu",
        "runs/a:b@c",
    ):
        assert scrub(address) == address
        assert not holds_credentials(address)
    for address in (
        "http://me:pass@host",
        "http://me:12345@host",
        "http://:pass@host",
        "http://key@host",
        "http://me:p#a?s@s@host/x",
        "s3://AKIA:ab/cd+e@bucket/x",
        "s3:/AKIA:abc@bucket",  # as a Path writes it
        "hdfs://me:pass@host/x",
        "s3://bucket/x?secret_key=pass",
        "s3://bucket/x?%74oken=pass",
    ):
        assert holds_credentials(address)
