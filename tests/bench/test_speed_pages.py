"""Tables of the speed bench."""

from lauter.bench.records import Record
from lauter.bench.speed_pages import (
    render_latency,
    render_peaks,
    render_rates,
    render_ratios,
    render_shares,
)


def make(method: str, **values: float) -> list[Record]:
    return [Record("speed", "resnet8", method, 0, metric, value) for metric, value in values.items()]


def test_rates_stand_beside_the_matrix_product() -> None:
    records = make(
        "student", images_per_second=1234.4, images_per_second_low=1200, images_per_second_high=1300
    )
    records += make("student", flops_per_second=5.5e10, of_peak=0.25, peak_mib=300)
    table = render_rates([*records, *make("bare", images_per_second=1300)])
    assert "| resnet8 | student | 1,234 | 1,200 | 1,300 | 55.0 | 25.0 | 300 |" in table
    assert "| resnet8 | bare | 1,300 | — | — | — | — | — |" in table
    assert table.splitlines()[1] == "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |"


def test_shares_are_percent_of_the_time() -> None:
    table = render_shares(make("student", share_data=0.011, share_student=0.9, share_epoch_end=0.02))
    assert "| resnet8 | student | 1.1 | — | 90.0 | — | — | — | 2.0 | — |" in table


def test_ratios_peaks_and_latency() -> None:
    assert "| loop_over_bare | resnet8 | 0.97 |" in render_ratios(make("loop_over_bare", ratio=0.971))
    peak = [Record("speed", "matrix product", "float32", 0, "flops_per_second", 1.5e11)]
    assert "| float32 | 150 |" in render_peaks(peak)
    latency = make("PyTorch", milliseconds_1=1.234, milliseconds_64=9.876, images_per_second_64=6480.3)
    assert "| PyTorch | 1.23 | 9.88 | 6,480 |" in render_latency(latency)


def test_without_records_there_is_no_table() -> None:
    for render in (render_rates, render_shares, render_ratios, render_peaks, render_latency):
        assert render([]) == ""
