import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))
DATA = os.path.join(HERE, "data")
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(HERE)))
