fn main() -> stubborn_build::Result {
    stubborn_build::Config::new().bytes(".").compile(["../../proto/echo.proto"])
}
